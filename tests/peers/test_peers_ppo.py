"""PPO: what one update of TRL 1.12's trainer computes, where it is right, and by how much it is off where it is not.

Where all responses have the full length there are no pads, and all agrees. With responses that end early, what TRL does
to the positions behind the end is told apart: each difference is measured, and undone it leaves none.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from prefloop.functional.advantages import gae, shape_rewards
from prefloop.functional.kl import k1
from prefloop.functional.losses import clipped_policy_loss, clipped_value_loss
from prefloop.functional.masked import masked_mean, whiten
from prefloop.models.batching import TokenBatch, collate
from prefloop.models.forward import response_logprobs, sequence_scores, token_values
from prefloop.models.load import load_policy, load_reward_model

CPU = torch.device("cpu")
KL_COEF, VF_COEF, CLIP = 0.05, 0.1, 0.2
PROMPT_LENGTH, LENGTH = 5, 12
WHITENED = 1.0
"""Size of the terms of a policy loss: their mean is near 0."""
SETTINGS = {
    "kl_coef": KL_COEF,
    "vf_coef": VF_COEF,
    "cliprange": CLIP,
    "cliprange_value": CLIP,
    "whiten_rewards": False,
    "temperature": 1.0,
}


class Update:
    """One update by TRL, and the same rows as ours."""

    def __init__(self, peer, models, chat, encode, *, ended: bool, micro_batch: int, num_prompts: int) -> None:
        generator = random.Random(4)
        lengths = ([3, 12, 7, 1, 10, 5, 9, 2] if ended else [LENGTH] * 8) * (num_prompts // 8)
        stop = chat.tokenizer.eos_token_id

        def ids(length: int) -> list[int]:
            return [generator.randrange(10, 260) for _ in range(length)]

        prompts = [ids(PROMPT_LENGTH) for _ in lengths]
        responses = [ids(length) if length == LENGTH else [*ids(length - 1), stop] for length in lengths]
        padded = [response + [chat.pad_id] * (LENGTH - len(response)) for response in responses]
        case = {"model": models["policy"], "reference": models["reference"], "reward": models["reward"]}
        # A value model that is still the reward model would hide where the score stands.
        case |= {"value": models["moved_value"], "moved": models["moved"], "moved_value": models["reward"]}
        case |= {"settings": SETTINGS, "batch": 8, "micro_batch": micro_batch, "prompts": prompts, "responses": padded}
        self.trl = peer("trl-1.12", "trl_ppo.py", case)
        order = self.trl["order"].tolist()
        rows = collate([encode(prompts[row], responses[row]) for row in order], pad_id=chat.pad_id)
        # As wide as theirs, also where the longest response was not drawn.
        more = (0, PROMPT_LENGTH + LENGTH - rows.input_ids.shape[1])
        ids, mask = F.pad(rows.input_ids, more, value=chat.pad_id), F.pad(rows.response_mask, more)
        self.rows = TokenBatch(ids, rows.lengths, mask)
        self.mask = self.response(self.rows.response_mask)
        self.micro_batches = [self.trl[f"micro_batch_inds.{number}"].tolist() for number in range(8 // micro_batch)]

    def response(self, x: Tensor) -> Tensor:
        """The part of [B, T] behind the prompts, as TRL aligns it."""
        return x[:, PROMPT_LENGTH:]

    def part(self, index: list[int]) -> TokenBatch:
        """The same rows, not cut to the longest of them."""
        return TokenBatch(self.rows.input_ids[index], self.rows.lengths[index], self.rows.response_mask[index])


@pytest.fixture(scope="module")
def update(peer, models, chat, encode):
    def make(*, ended: bool, micro_batch: int = 8, num_prompts: int = 16) -> Update:
        more = {"ended": ended, "micro_batch": micro_batch, "num_prompts": num_prompts}
        return Update(peer, models, chat, encode, **more)

    return make


def rollout_by_us(update: Update, models) -> dict[str, Tensor]:
    """Log-probabilities, values, scores, rewards, advantages and returns of the rollout, [B, response length]."""
    policy, reference = (load_policy(Path(models[name]), device=CPU)[0] for name in ("policy", "reference"))
    reward, value = (load_reward_model(Path(models[name]), device=CPU)[0] for name in ("reward", "moved_value"))
    with torch.no_grad():
        logprobs, ref_logprobs = (
            update.response(response_logprobs(model, update.rows)) for model in (policy, reference)
        )
        scores, values = sequence_scores(reward, update.rows), update.response(token_values(value, update.rows))
    rewards = shape_rewards(scores, k1(logprobs, ref_logprobs), update.mask, kl_coef=KL_COEF)
    advantages, returns = gae(rewards, values, update.mask)
    names = ("logprobs", "ref_logprobs", "values", "scores", "rewards", "unwhitened", "returns")
    return dict(zip(names, (logprobs, ref_logprobs, values, scores, rewards, advantages, returns), strict=True))


@pytest.mark.parametrize("name", ["logprobs", "ref_logprobs", "values", "scores", "rewards", "unwhitened", "returns"])
def test_the_rollout_without_pads(update, models, agree, name):
    whole = update(ended=False)
    agree(rollout_by_us(whole, models)[name], whole.trl[name], name)


@pytest.mark.parametrize("name", ["logprobs", "ref_logprobs", "values", "scores"])
def test_models_do_not_see_pads(update, models, agree, name):
    ended = update(ended=True)
    ours, theirs = rollout_by_us(ended, models)[name], ended.trl[name]
    if name != "scores":
        ours, theirs = ours[ended.mask], theirs[ended.mask]
    agree(ours, theirs, name)


def losses_by_us(update: Update, models, index: list[int], denominator: int | Tensor):
    """Policy and value loss of some rows, on TRL's rollout, and the moved models with their gradients."""
    trl, rows, mask = update.trl, update.part(index), update.mask[index]
    policy, value = (
        load_policy(Path(models["moved"]), device=CPU)[0],
        load_reward_model(Path(models["reward"]), device=CPU)[0],
    )
    policy_loss = clipped_policy_loss(
        update.response(response_logprobs(policy, rows)),
        trl["logprobs"][index],
        trl["advantages"][index],
        mask,
        clip_range=CLIP,
        denominator=denominator,
    )
    value_loss = clipped_value_loss(
        update.response(token_values(value, rows)),
        trl["values"][index],
        trl["returns"][index],
        mask,
        clip_range=CLIP,
        denominator=denominator,
    )
    (policy_loss.loss + VF_COEF * value_loss.loss).backward()
    return policy_loss, value_loss, policy, value


def test_the_update_without_pads(update, models, gradients_of, agree):
    whole = update(ended=False)
    policy_loss, value_loss, policy, value = losses_by_us(whole, models, list(range(8)), whole.mask.sum())
    clipped = float(policy_loss.token_sums["policy/clip_fraction"] / whole.mask.sum())
    assert 0.02 < clipped < 0.9 and 0.02 < float(value_loss.metrics["value/clip_fraction"]) < 0.98
    agree(policy_loss.loss, whole.trl["pg_loss.0"], "policy loss", scale=WHITENED)
    agree(value_loss.loss, whole.trl["vf_loss.0"], "value loss")
    for name, model in (("policy", policy), ("value", value)):
        theirs = {key.removeprefix(f"{name}."): grad for key, grad in whole.trl.items() if key.startswith(f"{name}.")}
        agree(gradients_of(model), theirs, f"gradient of the {name}")


# Where TRL differs


def test_where_trl_differs_the_variance_of_whitening_is_unbiased(update, agree, differ):
    """lm-human-preferences divides by n; with n - 1 advantages are smaller by sqrt((n - 1) / n), and more so in a
    small batch."""
    whole = update(ended=False)
    ours = whiten(whole.trl["unwhitened"], whole.mask)
    differ(ours, whole.trl["advantages"], "whitening")
    num_tokens = int(whole.mask.sum())
    agree(ours * ((num_tokens - 1) / num_tokens) ** 0.5, whole.trl["advantages"], "whitening, with n - 1")


def test_where_trl_differs_the_score_stands_behind_the_end(update, models, agree, differ):
    """A response that ends early gets its score on the first pad, whose value then counts as a state's."""
    ended = update(ended=True)
    ours, trl = rollout_by_us(ended, models), ended.trl
    differ(ours["rewards"][ended.mask], trl["rewards"][ended.mask], "rewards of response tokens")
    differ(ours["unwhitened"][ended.mask], trl["unwhitened"][ended.mask], "advantages")
    differ(ours["returns"][ended.mask], trl["returns"][ended.mask], "returns")
    # The same recursion gives theirs, once the response is taken to be one position longer.
    positions = torch.arange(LENGTH)
    longer = positions <= ended.mask.sum(1, keepdim=True)
    advantages, returns = gae(trl["rewards"], trl["values"], longer)
    agree(advantages[longer], trl["unwhitened"][longer], "advantages, with one position more")
    agree(returns[longer], trl["returns"][longer], "returns, with one position more")


def test_where_trl_differs_the_value_loss_counts_a_pad_in_each_row(update, models, differ, agree):
    ended = update(ended=True)
    policy_loss, value_loss, *_ = losses_by_us(ended, models, list(range(8)), ended.mask.sum())
    agree(policy_loss.loss, ended.trl["pg_loss.0"], "policy loss", scale=WHITENED)
    differ(value_loss.loss, ended.trl["vf_loss.0"], "value loss")


def test_where_trl_differs_micro_batches_are_averaged(update, models, gradients_of, agree, differ):
    """Four micro-batches of two rows: tokens of short responses weigh more than in one batch of eight."""
    split = update(ended=True, micro_batch=2)
    theirs = {key.removeprefix("policy."): grad for key, grad in split.trl.items() if key.startswith("policy.")}
    policy = losses_by_us(split, models, list(range(8)), split.mask.sum())[2]
    differ(gradients_of(policy), theirs, "gradient of the policy")
    means: dict[str, Tensor] = {}
    for index in split.micro_batches:
        part = losses_by_us(split, models, index, split.mask[index].sum())[2]
        for name, grad in gradients_of(part).items():
            means[name] = means.get(name, torch.zeros(())) + grad / len(split.micro_batches)
    agree(means, theirs, "gradient of the policy, as a mean of means")


def test_where_trl_differs_the_last_batch_of_a_pass_takes_a_step_for_each_micro_batch(update):
    """accelerate ends an accumulation where the data ends: of the last batch of prompts it makes many small steps."""
    inside, last = (update(ended=True, micro_batch=2, num_prompts=number) for number in (16, 8))
    assert [bool(inside.trl[f"sync.{number}"]) for number in range(4)] == [False, False, False, True]
    assert [bool(last.trl[f"sync.{number}"]) for number in range(4)] == [True, True, True, True]


def test_where_trl_differs_metrics_are_averaged_over_pads(update, agree, differ):
    ended = update(ended=True)
    ratio, log_ratio = ended.trl["ratio.0"], ended.trl["logprobs_diff.0"]
    index = ended.micro_batches[0]
    differ(masked_mean(ratio, ended.mask[index]), ended.trl["metric.val/ratio"], "mean ratio")
    differ(
        masked_mean(0.5 * log_ratio.square(), ended.mask[index]),
        ended.trl["metric.policy/approxkl_avg"],
        "approximate KL",
    )
    agree(ratio.mean(), ended.trl["metric.val/ratio"], "mean ratio, pads included")

"""RLOO and GRPO with its variants: advantages, losses and gradients are those of TRL 1.16's trainers, in fp32."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from prefloop.functional.advantages import shape_rewards
from prefloop.functional.batch import RolloutBatch
from prefloop.functional.kl import k1
from prefloop.functional.losses import kl_loss, loss_denominator
from prefloop.models.batching import collate
from prefloop.models.forward import response_logprobs
from prefloop.models.load import load_policy
from prefloop.train.algorithms.dapo import DAPO
from prefloop.train.algorithms.dr_grpo import DrGRPO
from prefloop.train.algorithms.grpo import GRPO
from prefloop.train.algorithms.gspo import GSPO
from prefloop.train.algorithms.rloo import RLOO

CPU = torch.device("cpu")
GROUP_SIZE, MAX_LENGTH = 4, 16


@pytest.fixture(scope="module")
def rollouts(chat):
    """Two groups of four responses of different lengths, with scores; all end with the stop token."""
    generator = random.Random(1)
    prompts = [[generator.randrange(10, 260) for _ in range(length)] for length in (4, 9) for _ in range(GROUP_SIZE)]
    for first in (0, GROUP_SIZE):
        prompts[first : first + GROUP_SIZE] = [prompts[first]] * GROUP_SIZE
    stop = chat.tokenizer.eos_token_id
    lengths = (1, 7, 12, 3, 5, 2, 15, 9)
    responses = [[*(generator.randrange(10, 260) for _ in range(length)), stop] for length in lengths]
    return prompts, responses, [0.3, -1.2, 2.0, 0.9, 1.0, 0.1, -0.4, 3.0]


def by_trl(peer, models, rollouts, trainer, settings, *, moved):
    prompts, responses, scores = rollouts
    case = {"trainer": trainer, "model": models["policy"], "reference": models["reference"], "moved": models[moved]}
    case |= {"settings": settings, "group_size": GROUP_SIZE, "max_length": MAX_LENGTH}
    return peer("trl", "trl_online.py", {**case, "prompts": prompts, "responses": responses, "scores": scores})


def by_us(models, chat, encode, rollouts, algorithm, *, moved, kl_coef=0.0, kl_penalty="reward"):
    """Advantages of the algorithm, its loss (with KL loss, if asked for) and the moved policy with its gradients."""
    prompts, responses, scores = rollouts
    rows = collate([encode(*row) for row in zip(prompts, responses, strict=True)], pad_id=chat.pad_id)
    policy, reference, after = (
        load_policy(Path(models[name]), device=CPU)[0] for name in ("policy", "reference", moved)
    )
    with torch.no_grad():
        old, ref = (response_logprobs(model, rows) for model in (policy, reference))
    mask = rows.response_mask
    in_reward = kl_coef if kl_penalty == "reward" else 0.0
    rewards = shape_rewards(torch.tensor(scores), k1(old, ref), mask, kl_coef=in_reward)
    batch = RolloutBatch(
        input_ids=rows.input_ids,
        lengths=rows.lengths,
        response_mask=mask,
        sampler_logprobs=old,
        old_logprobs=old,
        ref_logprobs=ref,
        scores=torch.tensor(scores),
        rewards=rewards,
        group=torch.arange(len(scores)) // GROUP_SIZE,
    )
    advantages = algorithm.advantages(batch).advantages
    reduction = algorithm.loss_reduction
    denominator = loss_denominator(mask, reduction=reduction, max_length=MAX_LENGTH)
    logprobs = response_logprobs(after, rows)
    output = algorithm.policy_loss(logprobs, batch, advantages, denominator=denominator)
    loss = output.loss
    if kl_penalty == "loss_k3":
        penalty = kl_loss(logprobs, old, ref, mask, estimator="k3", denominator=denominator, reduction=reduction)
        loss = loss + kl_coef * penalty.loss
    loss.backward()
    clip_fraction = output.token_sums.get("policy/clip_fraction", torch.tensor(0.0)) / mask.sum()
    return advantages[torch.arange(len(scores)), rows.lengths - 1], loss, after, float(clip_fraction)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_rloo(peer, models, chat, encode, rollouts, gradients_of, agree, beta):
    """At ratio 1, as in RLOO's only step. TRL's loss is a clipped ratio, ours the log-probability: equal gradients."""
    answer = by_trl(peer, models, rollouts, "rloo", {"beta": beta}, moved="policy")
    advantages, _, policy, _ = by_us(
        models, chat, encode, rollouts, RLOO(group_size=GROUP_SIZE), moved="policy", kl_coef=beta
    )
    agree(advantages, answer["advantages"], "advantages")
    agree(gradients_of(policy), answer, "gradient")


VARIANTS = {
    "grpo": (GRPO(group_size=GROUP_SIZE), {"loss_type": "grpo"}),
    "dr_grpo": (DrGRPO(group_size=GROUP_SIZE), {"loss_type": "dr_grpo", "scale_rewards": "none"}),
    "dapo": (DAPO(group_size=GROUP_SIZE), {"loss_type": "dapo", "epsilon_high": 0.28}),
    "gspo": (
        GSPO(group_size=GROUP_SIZE, clip_range=0.05, clip_range_high=0.06),
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.05, "epsilon_high": 0.06},
    ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_grpo_family(peer, models, chat, encode, rollouts, gradients_of, agree, name):
    """After the policy has moved so far that some ratios are cut off."""
    algorithm, settings = VARIANTS[name]
    answer = by_trl(peer, models, rollouts, "grpo", {"beta": 0.0, **settings}, moved="moved")
    advantages, loss, policy, clip_fraction = by_us(models, chat, encode, rollouts, algorithm, moved="moved")
    assert 0.02 < clip_fraction < 0.9
    agree(advantages, answer["advantages"], "advantages")
    agree(loss, answer["loss"].squeeze())
    agree(gradients_of(policy), answer, "gradient")


@pytest.mark.parametrize("name", ["grpo", "dr_grpo"])
def test_the_kl_loss_of_grpo(peer, models, chat, encode, rollouts, gradients_of, agree, name):
    """At ratio 1, with TRL's weighting of the KL switched off: the published k3 penalty (Shao et al. 2024)."""
    algorithm, settings = VARIANTS[name]
    settings = {"beta": 0.1, "use_bias_correction_kl": False, **settings}
    answer = by_trl(peer, models, rollouts, "grpo", settings, moved="policy")
    _, loss, policy, _ = by_us(
        models, chat, encode, rollouts, algorithm, moved="policy", kl_coef=0.1, kl_penalty="loss_k3"
    )
    agree(loss, answer["loss"].squeeze())
    agree(gradients_of(policy), answer, "gradient")


def test_where_trl_differs_its_weight_of_the_kl_loss_carries_a_gradient(
    peer, models, chat, encode, rollouts, gradients_of, agree, differ
):
    """Of a policy that has moved: equal losses, since both weight k3 by the ratio, but ours is a constant there."""
    settings = {"beta": 0.1, "loss_type": "grpo", "use_bias_correction_kl": True}
    answer = by_trl(peer, models, rollouts, "grpo", settings, moved="moved")
    _, loss, policy, _ = by_us(
        models, chat, encode, rollouts, VARIANTS["grpo"][0], moved="moved", kl_coef=0.1, kl_penalty="loss_k3"
    )
    agree(loss, answer["loss"].squeeze())
    differ(gradients_of(policy), answer, "the gradient of GRPO with a weighted KL")

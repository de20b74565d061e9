"""DPO, IPO, robust DPO, KTO and the reward model: loss and gradients are those of TRL 1.16's trainers, in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from prefloop.functional.losses import bradley_terry_loss
from prefloop.functional.preference import log_ratio
from prefloop.models.batching import collate
from prefloop.models.forward import response_logprobs, sequence_scores
from prefloop.models.load import load_policy, load_reward_model
from prefloop.train.preference import Examples, Objective, pair_logprobs
from prefloop.train.preference_losses import loss_settings

CPU = torch.device("cpu")
NUM_ROWS = 6


@pytest.mark.parametrize(
    ("loss", "settings", "theirs"),
    [
        ("dpo", {"beta": 0.3}, {"loss_type": "sigmoid", "beta": 0.3}),
        ("ipo", {"beta": 0.3}, {"loss_type": "ipo", "beta": 0.3}),
        ("robust", {"beta": 0.3, "label_smoothing": 0.2}, {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2}),
    ],
)
@pytest.mark.parametrize("token_budget", [10_000, 64])
def test_losses_of_pairs(peer, models, chat, pairs, encode, gradients_of, agree, loss, settings, theirs, token_budget):
    examples = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in pairs
    ]
    case = {"trainer": "dpo", "model": models["policy"], "reference": models["reference"]}
    answer = peer("trl", "trl_offline.py", {**case, "settings": theirs, "examples": examples})
    policy, reference = (load_policy(Path(models[name]), device=CPU)[0] for name in ("policy", "reference"))
    rows = [(encode(prompt, chosen), encode(prompt, rejected)) for prompt, chosen, rejected in pairs]
    objective = Objective(loss_settings(loss)(**settings), policy, chat, token_budget)
    sums = pair_logprobs(reference, chat, rows, token_budget=token_budget)
    total = objective.total(Examples(rows, [1.0] * NUM_ROWS, []), range(NUM_ROWS), sums)
    assert abs(float(total["preference/margin"])) > 1e-3, "away from where every loss is log 2"
    agree(total["preference/loss"], answer["loss"])
    agree(gradients_of(policy), answer, "gradient")


KTO = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.8}


@pytest.fixture(scope="module")
def labelled(pairs, encode):
    """Examples as TRL's collator takes them, rows and labels as ours: each response also behind another prompt."""
    examples, rows, labels = [], [], []
    for place, (prompt, response, _) in enumerate(pairs):
        other = pairs[place - 1][1]
        labels.append(place % 3 == 0)
        rows.append((encode(prompt, response), encode(prompt, other)))
        ids = {"prompt_ids": prompt, "completion_ids": response, "KL_completion_ids": other}
        examples.append({**ids, "label": labels[-1]})
    return examples, Examples(rows, [1.0] * NUM_ROWS, labels)


def kto_by_us(models, chat, names, examples, token_budget, settings=KTO):
    policy, reference = (load_policy(Path(models[name]), device=CPU)[0] for name in names)
    objective = Objective(loss_settings("kto")(**settings), policy, chat, token_budget)
    sums = pair_logprobs(reference, chat, examples.rows, token_budget=token_budget)
    return objective.total(examples, range(NUM_ROWS), sums), policy


@pytest.mark.parametrize("names", [("policy", "reference"), ("reference", "policy")])
@pytest.mark.parametrize("token_budget", [10_000, 64])
def test_kto(peer, models, chat, labelled, gradients_of, agree, token_budget, names):
    """Also with policy and reference exchanged: the reference point is clamped in one case and not in the other."""
    case = {"trainer": "kto", "model": models[names[0]], "reference": models[names[1]], "settings": KTO}
    answer = peer("trl", "trl_offline.py", {**case, "examples": labelled[0]})
    total, policy = kto_by_us(models, chat, names, labelled[1], token_budget)
    assert (float(total["preference/reference_point"]) > 0) == (names[0] == "reference")
    agree(total["preference/loss"], answer["loss"])
    agree(gradients_of(policy), answer, "gradient")


def test_where_trl_differs_the_reference_point_of_kto_is_that_of_a_micro_batch(
    peer, models, chat, labelled, gradients_of, differ
):
    """The same step in two micro-batches, which TRL's trainer averages: each has a reference point of its own."""
    names, settings = ("reference", "policy"), {**KTO, "beta": 3.0}
    case = {"trainer": "kto", "model": models[names[0]], "reference": models[names[1]], "settings": settings}
    halves = [
        peer("trl", "trl_offline.py", {**case, "examples": labelled[0][part]}) for part in (slice(0, 3), slice(3, 6))
    ]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in halves[0]}
    _, policy = kto_by_us(models, chat, names, labelled[1], 64, settings)
    differ(gradients_of(policy), mean, "the gradient of KTO")


@pytest.mark.parametrize("centering_coef", [0.0, 0.01])
def test_reward_model(peer, models, chat, pairs, encode, gradients_of, agree, centering_coef):
    rows = [[prompt + side for side in sides] for prompt, *sides in pairs]
    case = {
        **{"trainer": "reward", "model": models["reward"]},
        "examples": [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in rows],
        "settings": {"center_rewards_coefficient": centering_coef or None},
    }
    answer = peer("trl", "trl_offline.py", case)
    model, _ = load_reward_model(Path(models["reward"]), device=CPU)
    chosen, rejected = (
        sequence_scores(model, collate([encode(row[side], []) for row in rows], pad_id=chat.pad_id)) for side in (0, 1)
    )
    output = bradley_terry_loss(chosen, rejected, centering_coef=centering_coef, denominator=NUM_ROWS)
    output.loss.backward()
    agree(output.loss, answer["loss"])
    agree(gradients_of(model), answer, "gradient")


def test_where_trl_differs_label_smoothing_of_dpo_has_no_effect(peer, models, chat, pairs, encode, differ):
    """`loss_type="sigmoid"` ignores `label_smoothing`: there is no conservative DPO in TRL 1.16."""
    examples = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in pairs
    ]
    case = {"trainer": "dpo", "model": models["policy"], "reference": models["reference"], "examples": examples}
    losses = []
    for label_smoothing in (0.0, 0.2):
        settings = {"loss_type": "sigmoid", "beta": 0.3, "label_smoothing": label_smoothing}
        losses.append(float(peer("trl", "trl_offline.py", {**case, "settings": settings})["loss"]))
    assert losses[0] == losses[1]
    policy, reference = (load_policy(Path(models[name]), device=CPU)[0] for name in ("policy", "reference"))
    ratios = []
    for side in (1, 2):
        batch = collate([encode(row[0], row[side]) for row in pairs], pad_id=chat.pad_id)
        with torch.no_grad():
            ratios.append(log_ratio(*(response_logprobs(model, batch).sum(1) for model in (policy, reference))))
    ours = loss_settings("dpo")(beta=0.3, label_smoothing=0.2).loss(
        *ratios, weights=torch.ones(NUM_ROWS), denominator=torch.tensor(NUM_ROWS)
    )
    differ(ours.loss, torch.tensor(losses[1]), "the loss of conservative DPO")

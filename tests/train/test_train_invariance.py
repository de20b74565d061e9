"""How a step is cut into micro-batches changes nothing; what file weights and the learning-rate course do, by hand."""

from __future__ import annotations

import json
import math
from collections import Counter

import pytest
import torch

from prefloop.functional.losses import clipped_policy_loss
from prefloop.models.batching import TokenBatch, collate
from prefloop.models.forward import response_logprobs
from prefloop.models.load import load_policy
from prefloop.train.config import OptimizerConfig
from prefloop.train.loop import add_metrics, learning_rate, make_optimizer, optimizer_step, rows_of_step, stream_of_step
from prefloop.types import InputError, Message


@pytest.fixture(scope="module")
def first_rows(prefloop, data, sft_run, reward_run, tune, tmp_path_factory):
    """The first rows of metrics of each command, at a token budget."""
    offline = ("--model", sft_run.run, "--eval-fraction", 0, "--batch-size", 40, "--optimizer.lr", 1e-3)
    few = tmp_path_factory.mktemp("few")
    for file in ("demonstrations", "pairs"):
        rows_of_file = (data / f"{file}.jsonl").read_text().splitlines(keepends=True)
        (few / f"{file}.jsonl").write_text("".join(rows_of_file[:80]))

    def rows(name, token_budget):
        budget = ("--token-budget", token_budget)
        if name in ("ppo", "rloo"):
            words = ("--reward", reward_run.run, "--algorithm", name, "--num-steps", 2, "--prompts-per-step", 12)
            outcome = tune(*words, "--settings.num-minibatches", 2, *budget)
        else:
            file = "demonstrations" if name == "sft" else "pairs"
            words = ("--data", few / f"{file}.jsonl", "--out", tmp_path_factory.mktemp(name))
            outcome = prefloop(f"train {name}", *offline, *words, *budget)
        assert outcome.code == 0, outcome.said
        return outcome.metrics()[:2]

    return rows


@pytest.mark.parametrize(
    ("name", "loss", "norms"),
    [
        ("sft", "sft/loss", ("optim/grad_norm",)),
        ("reward", "reward/loss", ("optim/grad_norm",)),
        ("preference", "preference/loss", ("optim/grad_norm",)),
        ("ppo", "policy/loss", ("policy/grad_norm", "value/grad_norm", "value/loss", "policy/entropy", "kl/full")),
        ("rloo", "policy/loss", ("policy/grad_norm", "policy/entropy", "kl/full")),
    ],
)
def test_micro_batches_change_neither_loss_nor_gradient(first_rows, name, loss, norms):
    whole, split = first_rows(name, 10**6), first_rows(name, 128)
    for row, other in zip(whole, split, strict=True):
        for key in norms:
            assert other[key] == pytest.approx(row[key], rel=1e-5, abs=1e-7), key
        # A policy loss is a difference of whitened advantages, near 0: its error is that of the terms, of size 1.
        assert other[loss] == pytest.approx(row[loss], rel=1e-5, abs=1e-6 if name in ("ppo", "rloo") else 0)


def test_the_budget_really_splits_the_step(data, sft_run, prefloop, tmp_path, monkeypatch):
    from prefloop.train import sft

    sizes = []
    forward = sft.response_logprobs
    monkeypatch.setattr(
        sft, "response_logprobs", lambda model, batch: sizes.append(batch.input_ids.numel()) or forward(model, batch)
    )
    words = ("--model", sft_run.run, "--data", data / "demonstrations.jsonl", "--batch-size", 600)
    assert prefloop("train sft", *words, "--eval-fraction", 0, "--token-budget", 300, "--out", tmp_path).code == 0
    assert len(sizes) > 30 and max(sizes) <= 300


def test_a_file_of_double_weight_counts_as_if_it_came_twice(prefloop, sft_run, tmp_path):
    files = {}
    for name, answers in (("a", ["bee cheese", "tree"]), ("b", ["moon", "fog lamp sun"])):
        files[name] = tmp_path / f"{name}.jsonl"
        rows = [{"prompt": f"name {place}", "completion": answer} for place, answer in enumerate(answers)]
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))

    def first(command, out, *data):
        words = ("--model", sft_run.run, "--eval-fraction", 0, "--batch-size", 16, "--data", *data)
        outcome = prefloop(command, *words, "--out", tmp_path / out)
        assert outcome.code == 0, outcome.said
        return outcome.metrics()[0]

    weighted = first("train sft", "weighted", files["a"], f"{files['b']}@2")
    twice = first("train sft", "twice", files["a"], files["b"], files["b"])
    plain = first("train sft", "plain", files["a"], files["b"])
    scaled = first("train sft", "scaled", f"{files['a']}@0.001", f"{files['b']}@0.002")
    for key in ("sft/loss", "optim/grad_norm"):
        assert weighted[key] == pytest.approx(twice[key], rel=1e-5)
        assert scaled[key] == pytest.approx(weighted[key], rel=1e-5), "only proportions matter"
        assert abs(weighted[key] / plain[key] - 1) > 1e-4
    pairs = {}
    for name, sides in (("c", ("bee", "moon fog")), ("d", ("lamp sun", "cheese"))):
        pairs[name] = tmp_path / f"{name}.jsonl"
        pairs[name].write_text(json.dumps({"prompt": f"name {name}", "chosen": sides[0], "rejected": sides[1]}) + "\n")
    for command in ("reward", "preference"):
        words = f"train {command}"
        weighted = first(words, f"{command}-weighted", pairs["c"], f"{pairs['d']}@3")
        thrice = first(words, f"{command}-thrice", pairs["c"], *[pairs["d"]] * 3)
        for key in (f"{command}/loss", f"{command}/margin", "optim/grad_norm"):
            assert weighted[key] == pytest.approx(thrice[key], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # Ten steps, two of them warm-up: 1/2 and 2/2 of the peak; then 0, 1/8, ... 7/8 of the way to a tenth.
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, *(1 - 0.9 * place / 8 for place in range(8))]),
        ("cosine", [0.5, 1, *(0.55 + 0.45 * math.cos(math.pi * place / 8) for place in range(8))]),
    ],
)
def test_learning_rates_by_hand(schedule, expected):
    config = OptimizerConfig(lr=3.0, schedule=schedule, warmup_fraction=0.2)
    found = [learning_rate(config, step=step, num_steps=10) / 3.0 for step in range(10)]
    assert found == pytest.approx(expected)


def test_an_update_is_adamw_with_clipping_by_hand():
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    module = torch.nn.Module()
    module.weight = weight
    config = OptimizerConfig(
        lr=0.1, weight_decay=0.5, beta1=0.9, beta2=0.99, eps=1e-5, max_grad_norm=1.0, schedule="constant"
    )
    config = config.model_copy(update={"warmup_fraction": 0.0})
    optimizer = make_optimizer(module, config)
    weight.grad = torch.tensor([3.0, 4.0])
    norm, rate = optimizer_step(optimizer, config, step=0, num_steps=5)
    assert (norm, rate) == (pytest.approx(5.0), 0.1)
    # Clipped to norm 1: (0.6, 0.8). First step: both moments, bias-corrected, give g / (|g| + eps); decay first.
    expected = [start * (1 - 0.1 * 0.5) - 0.1 * grad / (abs(grad) + 1e-5) for start, grad in ((1.0, 0.6), (-2.0, 0.8))]
    assert weight.tolist() == pytest.approx(expected, rel=1e-5)
    assert weight.grad is None
    weight.grad = torch.tensor([math.inf, 0.0])
    with pytest.raises(InputError, match=r"value_optimizer\.lr: the gradient norm of step 2 is inf; lower"):
        optimizer_step(optimizer, config, step=1, num_steps=5, field="value_optimizer")
    assert weight.tolist() == pytest.approx(expected, rel=1e-5), "nothing was written into the weights"


def test_every_epoch_has_every_row_once_in_a_new_order():
    epochs = [
        [rows_of_step(3 * epoch + place, num_rows=10, batch_size=4, seed=5) for place in range(3)] for epoch in (0, 1)
    ]
    assert [[len(rows) for rows in epoch] for epoch in epochs] == [[4, 4, 2]] * 2
    orders = [[row for rows in epoch for row in rows] for epoch in epochs]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1]
    assert rows_of_step(0, num_rows=10, batch_size=4, seed=6) != epochs[0][0]


def test_rounds_are_equally_large_and_every_prompt_comes_equally_often():
    """Ten prompts, four a round: the third round takes the last two of one pass and the first two of the next."""
    rounds = [stream_of_step(step, num_rows=10, size=4, seed=5) for step in range(5)]
    assert [len(rows) for rows in rounds] == [4] * 5
    stream = [row for rows in rounds for row in rows]
    assert sorted(stream[:10]) == sorted(stream[10:]) == list(range(10))
    assert stream[:10] != stream[10:]
    # More than there are: a prompt may come twice in a round.
    assert sorted(Counter(stream_of_step(0, num_rows=3, size=7, seed=0)).values()) == [2, 2, 3]


def test_metrics_of_micro_batches_add_up_but_maxima():
    total: dict[str, torch.Tensor] = {}
    for loss, largest in ((0.25, 3.0), (0.5, 1.0)):
        add_metrics(total, {"policy/loss": torch.tensor(loss), "policy/ratio_max": torch.tensor(largest)})
    assert {name: float(value) for name, value in total.items()} == {"policy/loss": 0.75, "policy/ratio_max": 3.0}


def test_uneven_minibatches_are_averaged_over_as_many_as_there_are(tune, reward_run):
    """Seven groups in three minibatches: 3 + 2 + 2 groups, so the mean ratio of an unchanged policy is 1."""
    words = ("--settings.num-minibatches", 3, "--settings.num-epochs", 1, "--prompts-per-step", 7, "--num-steps", 1)
    row = tune("--reward", reward_run.run, *words, "--optimizer.lr", 1e-12).metrics()[0]
    assert row["policy/ratio_mean"] == pytest.approx(1, abs=1e-5)
    more = tune("--reward", reward_run.run, *words, "--settings.num-minibatches", 8, "--optimizer.lr", 1e-12)
    assert more.problem.startswith(
        "settings.num_minibatches: 8 minibatches of 7 prompts; give at most prompts_per_step"
    )


def test_early_stopping_keeps_the_best(prefloop, data, sft_run, tmp_path):
    """Two rows repeated learn by heart at once and get worse on the others."""
    rows = [json.loads(line) for line in (data / "demonstrations.jsonl").read_text().splitlines()]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:8]))
    (tmp_path / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[100:200]))
    words = ("--model", sft_run.run, "--data", tmp_path / "few.jsonl", "--eval-data", tmp_path / "others.jsonl")
    settings = ("--num-epochs", 60, "--eval-every", 2, "--patience", 3, "--optimizer.lr", 1e-2)
    outcome = prefloop("train sft", *words, *settings, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.said
    assert outcome.answer["stopped"] == "early_stopping"
    losses = {row["step"]: row["eval/loss"] for row in outcome.metrics() if "eval/loss" in row}
    best = min(losses, key=losses.get)
    assert outcome.model.parent.name == f"step-{best:06d}"
    assert len(losses) == list(losses).index(best) + 1 + 3
    again = prefloop("train sft", *words, *settings, "--out", tmp_path / "run")
    assert "already finished" in again.said
    (tmp_path / "run" / "result.json").unlink()
    resumed = prefloop("train sft", *words, *settings, "--out", tmp_path / "run")
    assert resumed.answer == outcome.answer


@pytest.mark.parametrize("num_parts", [1, 2, 4, 8])
@pytest.mark.parametrize("extra", [0, 5])
def test_in_float64_the_gradient_of_a_step_does_not_depend_on_its_cut_or_its_padding(sft_run, num_parts, extra):
    """The whole path, model included: embedding to clipped loss, against one row at a time without any padding."""
    model, chat = load_policy(sft_run.model)
    model = model.double()
    texts = ["bee", "moon fog", "tree cheese seed", "sun", "lamp road bee bee", "steel", "fog", "moon moon sun"]
    rows = [chat.encode_response((Message("user", "name things"),), text) for text in texts]
    generator = torch.Generator().manual_seed(0)
    advantages, shifts = torch.randn(2, len(rows), 1, dtype=torch.float64, generator=generator)
    denominator = sum(sum(row.mask) for row in rows)

    def gradient(batches, padding):
        model.zero_grad()
        for members in batches:
            batch = collate([rows[row] for row in members], pad_id=chat.pad_id)
            ids = torch.nn.functional.pad(batch.input_ids, (0, padding), value=chat.pad_id)
            mask = torch.nn.functional.pad(batch.response_mask, (0, padding))
            logprobs = response_logprobs(model, TokenBatch(ids, batch.lengths, mask))
            # Old log-probabilities a little off, so that some tokens are clipped.
            old = logprobs.detach() + 0.3 * shifts[members]
            output = clipped_policy_loss(
                logprobs, old, advantages[members].expand_as(mask), mask, clip_range=0.2, denominator=denominator
            )
            output.loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    expected = gradient([[row] for row in range(len(rows))], 0)
    found = gradient(torch.arange(len(rows)).tensor_split(num_parts), extra)
    assert expected.norm() > 1e-3
    assert (found - expected).norm() / expected.norm() < 1e-10

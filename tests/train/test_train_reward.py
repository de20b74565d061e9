"""`train reward` with its settings, through the command line, on pairs whose preference is known."""

from __future__ import annotations

import json
import math
import random
import re
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from prefloop.data.formats import make_prompt
from prefloop.data.read import read_pairs
from prefloop.models.heads import join_heads
from prefloop.models.load import load_reward_model, new_reward_model
from prefloop.reward.evaluate import margins_of
from prefloop.reward.scoring import Response, load_scorer
from prefloop.rundir import sha256_of
from prefloop.statistics.calibration import fit_temperature, log_loss
from prefloop.train.config import OdinConfig, RewardConfig
from prefloop.train.pairs import encode_pairs
from prefloop.train.reward_data import training_pairs
from prefloop.train.reward_steps import step_gradient
from prefloop.types import Message

WITH_E = ("tree", "bee", "cheese", "seed", "steel")
WITHOUT_E = ("moon", "lamp", "road", "sun", "fog")


def words_of(generator, pool, count):
    return " ".join(generator.choice(pool) for _ in range(count))


def mixed(generator, share, count):
    """`count` words, of which about this share have an e."""
    return " ".join(generator.choice(WITH_E if generator.random() < share else WITHOUT_E) for _ in range(count))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def longer_wins(tmp_path_factory):
    """400 pairs: in nine of ten the chosen response is the longer one, and three of four of its words have an e, which
    one of four words of the rejected one has."""
    generator = random.Random(1)
    rows = []
    for number in range(400):
        lengths = sorted(generator.sample(range(2, 9), 2), reverse=number % 10 > 0)
        chosen = mixed(generator, 0.75, lengths[0])
        rows.append({"prompt": f"name {number}", "chosen": chosen, "rejected": mixed(generator, 0.25, lengths[1])})
    return write(tmp_path_factory.mktemp("longer") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def fit(prefloop, sft_run, tmp_path_factory):
    """`train reward` on a file with settings; the outcome."""

    def run(path, *settings, out=None):
        return prefloop(
            *("train reward", "--model", sft_run.run, "--data", path, "--optimizer.lr", 3e-3),
            *("--out", out or tmp_path_factory.mktemp("reward") / "run", *settings),
        )

    return run


def trained(outcome):
    assert outcome.code == 0, outcome.said
    return outcome


def score(path, *texts):
    from prefloop.types import Message, Prompt

    prompt = Prompt("p", (Message("user", "name things"),))
    scorer = load_scorer(str(path), device=torch.device("cpu"))
    return scorer.score([prompt] * len(texts), [Response(text) for text in texts])


def correlation_with_length(path, file):
    pairs = read_pairs([str(file)]).records
    texts = [side for pair in pairs for side in (pair.chosen, pair.rejected)]
    prompts = [pair.prompt for pair in pairs for _ in range(2)]
    scores = load_scorer(str(path), device=torch.device("cpu")).score(prompts, [Response(text) for text in texts])
    return float(np.corrcoef(scores, [len(text.split()) for text in texts])[0, 1])


# ODIN


def test_odin_takes_the_length_out_of_what_it_keeps(fit, longer_wins):
    words = ("--num-epochs", 10, "--eval-fraction", 0.2, "--eval-every", 20)
    plain, parted = (trained(fit(longer_wins, *words, *odin)) for odin in ((), ("--odin.length-coef", 0.3)))
    assert correlation_with_length(plain.run, longer_wins) > 0.5
    assert abs(correlation_with_length(parted.run, longer_wins)) < 0.25
    assert max(row["eval/accuracy"] for row in parted.metrics() if "eval/accuracy" in row) > 0.8
    assert parted.metrics()[-1]["reward/head_overlap"] < 0.1
    # What is kept is a plain classifier of one label.
    model = AutoModelForSequenceClassification.from_pretrained(parted.model)
    assert (model.config.num_labels, tuple(model.score.weight.shape)) == (1, (1, 32))


@pytest.mark.parametrize("odin", [None, OdinConfig(length_coef=0.7, orthogonality_coef=0.3)])
def test_the_gradient_of_a_step_does_not_depend_on_its_micro_batches(sft_run, longer_wins, odin):
    pairs = read_pairs([str(longer_wins)]).records[:12]
    gradients = []
    for budget in (100_000, 64):
        config = RewardConfig(model=str(sft_run.model), data=(str(longer_wins),), token_budget=budget, odin=odin)
        model, chat = new_reward_model(sft_run.model, seed=0, num_heads=1 if odin is None else 2)
        model.double()
        step_gradient(config, model, chat, training_pairs(config, model, chat, pairs), range(12))
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]))
    assert torch.linalg.vector_norm(gradients[0]) > 0
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6 * float(gradients[0].abs().max()))


def test_odins_two_passes_have_the_gradient_of_the_loss_written_out(sft_run, longer_wins):
    """The whole loss in one graph, by numpy's formula for the correlation."""
    pairs = read_pairs([str(longer_wins)]).records[:8]
    odin = OdinConfig(length_coef=0.7, orthogonality_coef=0.3)
    config = RewardConfig(model=str(sft_run.model), data=(str(longer_wins),), odin=odin, centering_coef=0.0)
    model, chat = new_reward_model(sft_run.model, seed=0, num_heads=2)
    step_gradient(config, model, chat, training_pairs(config, model, chat, pairs), range(8))
    found = model.score.weight.grad.clone()
    model.zero_grad()
    _, rows = encode_pairs(config, model, chat, pairs)
    sides = [side for place in (0, 1) for side in (row[place] for row in rows)]
    hidden = torch.stack([model.model(torch.tensor([side.ids])).last_hidden_state[0, -1] for side in sides])
    scores = hidden @ model.score.weight.T
    total = scores.sum(1)
    lengths = torch.tensor([float(sum(side.mask)) for side in sides])
    rho = [torch.corrcoef(torch.stack([scores[:, head], lengths]))[0, 1] for head in (0, 1)]
    cosine = torch.cosine_similarity(model.score.weight[0], model.score.weight[1], dim=0)
    loss = torch.nn.functional.softplus(total[8:] - total[:8]).mean() + 0.7 * (rho[0].abs() - rho[1])
    (loss + 0.3 * cosine.abs()).backward()
    assert torch.allclose(found, model.score.weight.grad, atol=1e-5)


# Several dimensions


@pytest.fixture(scope="module")
def two_dimensions(tmp_path_factory):
    """By one dimension words with e are preferred, by the other short answers."""
    generator = random.Random(2)
    rows = []
    for number in range(400):
        if number % 2:
            row = {"chosen": words_of(generator, WITH_E, 3), "rejected": words_of(generator, WITHOUT_E, 3)}
        else:
            pool = WITH_E + WITHOUT_E
            row = {"chosen": words_of(generator, pool, 1), "rejected": words_of(generator, pool, 6)}
        rows.append({"prompt": f"name {number}", **row, "dimension": ("short", "letter")[number % 2]})
    return write(tmp_path_factory.mktemp("dimensions") / "pairs.jsonl", rows)


def test_each_head_learns_its_dimension_and_the_model_is_their_stated_sum(fit, two_dimensions):
    words = ("--heads.names", "letter", "short", "--heads.weights", 1, 0.5, "--num-epochs", 4)
    outcome = trained(fit(two_dimensions, *words))
    assert outcome.answer["metrics"]["eval/accuracy"] > 0.85
    assert outcome.answer["outputs"] == {"letter": "heads/letter", "short": "heads/short", "model": "model"}
    letter, short = (outcome.run / "heads" / name for name in ("letter", "short"))
    by_letter, by_length = score(letter, "bee bee bee", "fog fog fog"), score(short, "fog", "fog sun road moon fog sun")
    assert by_letter[0] > by_letter[1] + 0.5 and by_length[0] > by_length[1] + 0.5
    # The model's raw score is 1 x letter + 0.5 x short, each normalised, up to a constant.
    texts = ("bee", "fog", "seed sun moon", "cheese cheese", "road road road road")
    model, _ = load_reward_model(outcome.model)
    joined = np.array(score(outcome.model, *texts)) * model.config.reward_std + model.config.reward_mean
    parts = np.array(score(letter, *texts)) + 0.5 * np.array(score(short, *texts))
    assert np.ptp(joined - parts) == pytest.approx(0, abs=1e-4)


def test_a_pair_without_a_known_dimension_is_named(fit, longer_wins, two_dimensions):
    words = ("--heads.names", "letter", "short")
    assert re.search(
        r"pairs.jsonl:\d+: dimension: missing; give one of letter, short", fit(longer_wins, *words).problem
    )
    refused = fit(two_dimensions, "--heads.names", "letter", "long").problem
    assert re.search(r"pairs.jsonl:\d+: dimension: is 'short', which heads.names has not", refused)


def test_joined_heads_score_the_sum_of_their_scores(sft_run):
    model, _ = new_reward_model(sft_run.model, seed=3, num_heads=3)
    ids = torch.tensor([[5, 9, 7]])
    with torch.no_grad():
        before = model(ids).logits[0]
        join_heads(model, [0.5, -2.0, 1.0])
        after = model.score(model.model(ids).last_hidden_state[:, -1])
    assert float(after) == pytest.approx(float(before @ torch.tensor([0.5, -2.0, 1.0])), abs=1e-6)


# Labels


def test_strengths_widen_margins(fit, longer_wins, tmp_path):
    rows = [json.loads(line) for line in longer_wins.read_text().splitlines()]
    path = write(tmp_path / "strong.jsonl", [{**row, "strength": 1.0} for row in rows])
    margins = [
        trained(fit(path, "--margin-coef", coef, "--num-epochs", 2)).metrics()[-1]["reward/margin"] for coef in (0, 3)
    ]
    assert margins[1] > 1.3 * margins[0]
    assert fit(longer_wins, "--margin-coef", 1).problem.startswith("margin_coef: has no effect: no pair has a strength")
    negative = write(tmp_path / "negative.jsonl", [{**row, "margin": -1.0} for row in rows])
    assert "negative.jsonl:1: strength: is below 0" in fit(negative, "--margin-coef", 1).problem


def test_ties_are_trained_on_only_where_asked_and_pull_scores_together(fit, longer_wins, tmp_path):
    rows = [json.loads(line) for line in longer_wins.read_text().splitlines()]
    path = write(tmp_path / "tied.jsonl", rows[:200] + [{**row, "tie": True} for row in rows[200:]])
    left_out = trained(fit(path, "--num-epochs", 3))
    assert "rows without a record of their own: ties 200" in left_out.said
    kept = trained(fit(path, "--num-epochs", 3, "--soft-ties", "true"))
    pairs = read_pairs([str(longer_wins)]).records

    def raw_margin(outcome):
        scorer = load_scorer(str(outcome.run), device=torch.device("cpu"))
        margins = margins_of(scorer, pairs, [pair.prompt for pair in pairs])
        return float(np.mean(margins)) * load_reward_model(outcome.model)[0].config.reward_std

    assert raw_margin(left_out) > raw_margin(kept) > 0
    assert fit(longer_wins, "--soft-ties", "true").problem.startswith("soft_ties: has no effect: there is no tie")


def test_settings_that_undo_each_other_are_refused(fit, longer_wins):
    refused = fit(longer_wins, "--label-smoothing", 0.1, "--noise-rate", 0.1).problem
    assert "label_smoothing and noise_rate undo each other" in refused
    both = fit(longer_wins, "--odin.length-coef", 1, "--heads.names", "a", "b").problem
    assert "odin and heads both say what the heads are for" in both
    assert "no effect without reference_samples" in fit(longer_wins, "--reference-max-new-tokens", 8).problem
    assert "length_balance: leaves no pair" in fit(_all_longer(longer_wins), "--length-balance", "true").problem


def _all_longer(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return write(path.with_name("all.jsonl"), [row for row in rows if len(row["chosen"]) > len(row["rejected"])])


# Remedies


def test_balanced_weights_and_neutral_pairs_each_weaken_the_length_shortcut(fit, longer_wins):
    remedies = {"none": (), "balance": ("--length-balance", "true"), "neutral": ("--augment.neutral-fraction", 1)}
    found = {
        name: correlation_with_length(trained(fit(longer_wins, "--num-epochs", 4, *words)).run, longer_wins)
        for name, words in remedies.items()
    }
    assert found["balance"] < found["none"] - 0.1, found
    assert found["neutral"] < found["none"] - 0.05, found


def test_pairs_in_which_a_habit_loses_take_it_away(fit, tmp_path):
    generator = random.Random(5)
    rows = []
    for number in range(240):
        first, second = words_of(generator, WITHOUT_E, 2), words_of(generator, WITHOUT_E, 2)
        loud, calm = f"{first}! {second}.", f"{first}. {second}."
        e = words_of(generator, WITH_E, 2)
        sides = (loud, calm) if number % 5 == 0 else (f"{e}. {first}.", calm)
        rows.append({"prompt": f"say {number}", "chosen": sides[0], "rejected": sides[1]})
    path = write(tmp_path / "pairs.jsonl", rows)
    told = ("--augment.habits", "exclamation", "--augment.habit-fraction", 0.3)
    plain, mended = (trained(fit(path, "--num-epochs", 4, "--eval-fraction", 0, *words)).run for words in ((), told))

    def worth(run):
        scorer = load_scorer(str(run), device=torch.device("cpu"))
        prompts = [make_prompt((Message("user", f"say {number}"),)) for number in range(40)]
        texts = [words_of(random.Random(number), WITHOUT_E, 4) for number in range(40)]
        loud, calm = (
            scorer.score(prompts, [Response(text.replace(" ", mark, 1)) for text in texts]) for mark in ("! ", ". ")
        )
        return np.mean(loud) - np.mean(calm)

    assert worth(plain) > 0.3
    assert worth(mended) < worth(plain) / 2


def test_mismatched_pairs_make_the_model_read_the_prompt(fit, tmp_path):
    # The right answer repeats the prompt's word; the labels alone are about the letter e only.
    generator = random.Random(4)
    rows = []
    for _ in range(400):
        word = generator.choice(WITH_E)
        rows.append(
            {"prompt": f"say {word}", "chosen": f"{word} {word}", "rejected": words_of(generator, WITHOUT_E, 2)}
        )
    path = write(tmp_path / "pairs.jsonl", rows)
    plain, read = (
        trained(fit(path, "--num-epochs", 6, "--eval-fraction", 0, *words))
        for words in ((), ("--augment.mismatched-fraction", 1))
    )
    assert "added 4" in read.said or "added 3" in read.said

    def own_answer_wins(run):
        scorer = load_scorer(str(run), device=torch.device("cpu"))
        pairs = read_pairs([str(path)]).records[:100]
        foreign = [next(other for other in pairs if other.chosen != pair.chosen) for pair in pairs]
        prompts = [pair.prompt for pair in pairs]
        own = scorer.score(prompts, [Response(pair.chosen) for pair in pairs])
        others = scorer.score(prompts, [Response(pair.chosen) for pair in foreign])
        return float(np.mean(np.array(own) > np.array(others)))

    assert own_answer_wins(read.run) > own_answer_wins(plain.run) + 0.1


# Scale, temperature, card


def test_the_temperature_is_fitted_to_held_out_pairs_stored_and_used(fit, prefloop, longer_wins, tmp_path):
    rows = [json.loads(line) for line in longer_wins.read_text().splitlines()]
    held_out = write(tmp_path / "held-out.jsonl", [{**row, "prompt": f"again {row['prompt']}"} for row in rows[:120]])
    train = write(tmp_path / "train.jsonl", rows[120:])
    outcome = trained(fit(train, "--eval-data", held_out, "--noise-rate", 0, "--num-epochs", 1))
    config = json.loads((outcome.model / "config.json").read_text())
    pairs = read_pairs([str(held_out)]).records
    margins = margins_of(
        load_scorer(str(outcome.run), device=torch.device("cpu")), pairs, [pair.prompt for pair in pairs]
    )
    assert config["reward_temperature"] == pytest.approx(fit_temperature(margins), rel=1e-3)
    answer = prefloop("reward eval", outcome.run, held_out).answer
    assert answer["temperature"] == config["reward_temperature"]
    assert answer["best_temperature"] == pytest.approx(1.0, rel=1e-3)
    assert answer["log_loss"] == pytest.approx(log_loss(np.array(margins) / config["reward_temperature"]), rel=1e-4)
    card = (outcome.model / "README.md").read_text()
    assert sha256_of(train) in card and sha256_of(held_out) in card
    assert f"| this model | {answer['accuracy']:.3f} (95 % interval" in card
    assert f"| longer | {answer['baselines']['longer']:.3f} |" in card and "| shuffled prompt |" in card
    assert "audit: none" in card
    assert (outcome.model / "reliability.svg").read_text().startswith("<svg")


def test_five_rows_train_and_claim_nothing(fit, prefloop, tmp_path):
    rows = [{"prompt": f"name {number}", "chosen": "bee", "rejected": "fog"} for number in range(5)]
    path = write(tmp_path / "five.jsonl", rows)
    outcome = trained(fit(path))
    assert "None: nothing is known of its accuracy." in (outcome.model / "README.md").read_text()
    assert json.loads((outcome.model / "config.json").read_text())["reward_temperature"] is None
    answer = prefloop("reward eval", outcome.run, path).answer
    assert answer["note"].startswith("5 conversations are too few for a claim")
    assert answer["temperature"] is None


def test_scores_are_normalised_on_what_the_starting_model_says(fit, longer_wins, sft_run):
    words = ("--reference-samples", 40, "--reference-max-new-tokens", 12)
    sampled, given = trained(fit(longer_wins, *words)), trained(fit(longer_wins))
    assert "sampling 40 responses of the starting model" in sampled.said
    first, second = (load_reward_model(run.model)[0] for run in (sampled, given))
    assert torch.equal(first.score.weight, second.score.weight), "the scale is no part of training"
    assert first.config.reward_mean != second.config.reward_mean


# Ensembles


@pytest.fixture(scope="module")
def ensemble(fit, longer_wins, tmp_path_factory):
    words = ("--members.size", 2, "--members.by", "bootstrap", "--eval-fraction", 0.3)
    return trained(fit(longer_wins, *words, out=tmp_path_factory.mktemp("ensemble") / "run"))


def test_an_ensemble_is_a_directory_of_members_that_scores_with_its_spread(ensemble, prefloop, longer_wins, tmp_path):
    assert ensemble.answer["outputs"] == {"model": "members"}
    members = [ensemble.run / "members" / f"member-0{number}" for number in (0, 1)]
    one, two = (score(member, "bee fog", "fog") for member in members)
    assert one != two
    assert score(ensemble.run, "bee fog", "fog") == pytest.approx([(a + b) / 2 for a, b in zip(one, two, strict=True)])
    path = write(tmp_path / "responses.jsonl", [{"prompt": "name things", "response": "bee fog"}])
    prefloop("reward score", ensemble.run, path, "--out", tmp_path / "scores.jsonl")
    row = json.loads((tmp_path / "scores.jsonl").read_text())
    assert row["score_spread"] == pytest.approx(abs(one[0] - two[0]) / 2, abs=1e-5)
    answer = prefloop("reward eval", ensemble.run, longer_wins).answer
    stored = json.loads((ensemble.run / "members" / "ensemble.json").read_text())["reward_temperature"]
    assert answer["temperature"] == stored and stored is not None
    assert "eval/accuracy" in ensemble.answer["metrics"] and ensemble.answer["metrics"]["num_members"] == 2
    assert "| this model |" in (ensemble.run / "members" / "README.md").read_text()


def test_members_hold_out_the_same_conversations_and_differ(ensemble):
    first, second = (
        [json.loads(line) for line in (ensemble.run / "members" / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("member-00", "member-01")
    )
    assert first[0]["reward/loss"] != second[0]["reward/loss"]
    # A bootstrap sample has fewer distinct pairs than there are, hence fewer steps than ten.
    assert len(first) < math.ceil(0.75 * 400 / 32)


def test_a_killed_ensemble_trains_only_the_member_that_is_missing(ensemble, fit, longer_wins):
    config = (ensemble.run / "config.yaml").read_text()
    assert "bootstrap" in config
    before = {file: file.read_bytes() for file in sorted((ensemble.run / "members").rglob("model/*.safetensors"))}
    kept = ensemble.run / "members" / "member-00" / "result.json"
    stamp = kept.stat().st_mtime_ns
    (ensemble.run / "result.json").unlink()
    shutil.rmtree(ensemble.run / "members" / "member-01")
    words = ("--members.size", 2, "--members.by", "bootstrap", "--eval-fraction", 0.3)
    again = trained(fit(longer_wins, *words, out=ensemble.run))
    assert again.answer == ensemble.answer
    assert kept.stat().st_mtime_ns == stamp
    assert {file: file.read_bytes() for file in before} == before


def test_member_0_by_seed_is_the_model_without_an_ensemble(fit, longer_wins):
    alone = trained(fit(longer_wins, "--seed", 7))
    both = trained(fit(longer_wins, "--seed", 7, "--members.size", 2))
    first, second = (
        load_reward_model(both.run / "members" / name / "model")[0].score.weight for name in ("member-00", "member-01")
    )
    assert torch.equal(first, load_reward_model(alone.model)[0].score.weight)
    assert not torch.equal(first, second)


def test_a_policy_takes_an_ensemble_as_its_reward(ensemble, tune):
    tuned = tune("--reward", ensemble.run, "--num-steps", 1, "--prompts-per-step", 4)
    assert tuned.code == 0, tuned.said
    rows = (tuned.run / "rollouts" / "rollouts.jsonl").read_text().splitlines()
    assert all(json.loads(row)["score_spread"] is not None for row in rows)


# Adapters


@pytest.mark.parametrize("words", [("--odin.length-coef", 1), ("--heads.names", "letter", "short")])
def test_several_heads_beside_adapters_become_one(fit, two_dimensions, words):
    outcome = trained(fit(two_dimensions, "--lora.rank", 2, *words))
    merged = score(outcome.model, "bee", "fog sun")
    assert score(outcome.run / "adapter", "bee", "fog sun") == pytest.approx(merged, abs=1e-4)


def test_an_over_long_held_out_pair_is_left_out_by_the_ensemble_as_by_its_members(fit, longer_wins, tmp_path):
    rows = [json.loads(line) for line in longer_wins.read_text().splitlines()]
    train = write(tmp_path / "train.jsonl", rows[:64])
    held_out = [{**row, "prompt": f"again {row['prompt']}"} for row in rows[64:80]]
    held_out[0]["chosen"] = "bee " * 300
    path = write(tmp_path / "held-out.jsonl", held_out)
    outcome = trained(fit(train, "--eval-data", path, "--skip-bad", "true", "--members.size", 2))
    assert "On 15 pairs of 15 conversations" in (outcome.run / "members" / "README.md").read_text()


@pytest.mark.parametrize("by", ["member_accuracy", "eval/accuracy"])
def test_an_ensemble_without_held_out_pairs_claims_nothing(fit, longer_wins, by):
    outcome = trained(fit(longer_wins, "--eval-fraction", 0, "--members.size", 2, "--batch-size", 200))
    assert by not in outcome.answer["metrics"]
    assert json.loads((outcome.run / "members" / "ensemble.json").read_text()) == {"reward_temperature": None}

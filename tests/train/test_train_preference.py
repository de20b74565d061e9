"""Preference losses end to end: what they learn, KTO's data and reference point, the cache of the reference."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from prefloop.models.chat import Encoded
from prefloop.models.load import load_policy
from prefloop.rundir import RunDir
from prefloop.train.preference_losses import LOSSES
from prefloop.train.unpaired import mismatched
from prefloop.types import Message

STEADY = ("--optimizer.lr", 3e-3, "--num-epochs", 2, "--eval-fraction", 0.2)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def preference(prefloop, data, sft_run, tmp_path_factory):
    """`train preference` on the tiny policy and, unless other data is given, on the pairs; a later setting wins."""

    def call(*settings, out=None):
        words = ("--model", sft_run.run, "--out", out or tmp_path_factory.mktemp("preference"))
        pairs = () if "--data" in settings else ("--data", data / "pairs.jsonl")
        return prefloop("train preference", *words, *pairs, *settings)

    return call


@pytest.fixture(scope="module")
def unpaired(data, tmp_path_factory):
    """The pairs as single labelled responses."""
    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in read_rows(data / "pairs.jsonl")
        for side in ("chosen", "rejected")
    ]
    return write_rows(tmp_path_factory.mktemp("unpaired") / "unpaired.jsonl", rows)


def logprob(model, chat, prompt, response):
    """log p(response | prompt) by plain transformers, one row, the logits of all tokens."""
    encoded = chat.encode_response((Message("user", prompt),), response)
    ids = torch.tensor([encoded.ids])
    with torch.no_grad():
        logprobs = model(ids).logits[0, :-1].log_softmax(-1)
    picked = logprobs[torch.arange(len(encoded.ids) - 1), ids[0, 1:]]
    return float(picked[torch.tensor(encoded.mask[1:])].sum())


def accuracy(policy, reference, chat, pairs):
    """Share of pairs whose chosen response gained more log-probability, a tie counts one half."""
    right = 0.0
    for pair in pairs:
        gains = [
            logprob(policy, chat, pair["prompt"], pair[side]) - logprob(reference, chat, pair["prompt"], pair[side])
            for side in ("chosen", "rejected")
        ]
        right += (gains[0] > gains[1]) + 0.5 * (gains[0] == gains[1])
    return right / len(pairs)


@pytest.mark.parametrize(
    ("loss", "settings"),
    [
        ("dpo", ()),
        ("dpo", ("--settings.label-smoothing", 0.2)),
        ("ipo", ()),
        ("ipo", ("--settings.length-averaged", "false")),
        ("robust", ()),
        ("kto", ()),
        ("kto", ("unpaired",)),
    ],
)
def test_a_loss_teaches_the_preference(preference, data, sft_run, unpaired, tmp_path, loss, settings):
    held_out = [row for row in read_rows(data / "pairs.jsonl") if "the bee or" in row["prompt"]]
    train = [row for row in read_rows(data / "pairs.jsonl") if "the bee or" not in row["prompt"]]
    if settings == ("unpaired",):
        prompts = {row["prompt"] for row in train}
        train, settings = [row for row in read_rows(unpaired) if row["prompt"] in prompts], ()
    data_words = ("--data", write_rows(tmp_path / "train.jsonl", train))
    words = ("--eval-data", write_rows(tmp_path / "held-out.jsonl", held_out), "--loss", loss, *settings)
    outcome = preference(*STEADY, *data_words, *words, "--eval-fraction", 0)
    assert outcome.code == 0, outcome.said
    policy, reference = (AutoModelForCausalLM.from_pretrained(path) for path in (outcome.model, sft_run.model))
    chat = load_policy(sft_run.model)[1]
    assert len(held_out) > 20
    assert accuracy(reference, reference, chat, held_out) == 0.5
    assert accuracy(policy, reference, chat, held_out) > 0.9
    rows = outcome.metrics()
    assert rows[-1]["eval/accuracy"] > 0.85 and rows[-1]["eval/margin"] > 0.02
    assert rows[-1]["preference/loss"] < rows[0]["preference/loss"]
    for name in ("accuracy", "margin", "chosen_reward", "rejected_reward"):
        assert f"preference/{name}" in rows[-1]
    assert ("preference/reference_point" in rows[-1]) == (loss == "kto")


def test_held_out_accuracy_is_that_of_plain_transformers(preference, data, sft_run, tmp_path):
    rows = read_rows(data / "pairs.jsonl")
    held_out = write_rows(tmp_path / "held-out.jsonl", rows[:40])
    outcome = preference("--data", write_rows(tmp_path / "train.jsonl", rows[40:80]), "--eval-data", held_out)
    policy, reference = (AutoModelForCausalLM.from_pretrained(path) for path in (outcome.model, sft_run.model))
    expected = accuracy(policy, reference, load_policy(sft_run.model)[1], rows[:40])
    assert outcome.metrics()[-1]["eval/accuracy"] == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def tuned(preference):
    """A policy that is not its reference any more: every loss has something to say of it."""
    outcome = preference(*STEADY)
    assert outcome.code == 0, outcome.said
    return outcome


@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_change_neither_loss_nor_gradient(preference, sft_run, tuned, loss):
    words = ("--model", sft_run.run, "--reference", tuned.run, "--loss", loss, "--batch-size", 40)
    whole, split = (preference(*words, "--token-budget", budget).metrics()[0] for budget in (10**6, 128))
    assert whole.keys() == split.keys()
    for key in whole.keys() - {"step", "time/step_seconds"}:
        assert split[key] == pytest.approx(whole[key], rel=1e-5, abs=1e-6), key
    if loss == "kto":
        # Seen from the tuned policy, the other one likes the rejected words far too much, whatever the prompt.
        assert whole["preference/reference_point"] > 0


def test_the_first_step_of_kto_by_plain_transformers(preference, sft_run, tuned, tmp_path):
    """Two prompts, so that each response has one foreign prompt it can stand behind, and the whole step is seen."""
    rows = [
        {"prompt": "name a tree", "completion": "bee cheese", "label": True},
        {"prompt": "name a lamp", "completion": "moon", "label": False},
        {"prompt": "name a lamp", "completion": "sun fog", "label": False},
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    words = ("--model", sft_run.run, "--reference", tuned.run, "--loss", "kto", "--data", path, "--eval-fraction", 0)
    row = preference(*words, "--settings.beta", 0.2, "--settings.desirable-weight", 1.4).metrics()[0]
    policy, reference = (AutoModelForCausalLM.from_pretrained(path) for path in (sft_run.model, tuned.model))
    chat = load_policy(sft_run.model)[1]

    def ratio(prompt, response):
        return logprob(policy, chat, prompt, response) - logprob(reference, chat, prompt, response)

    own = [ratio(each["prompt"], each["completion"]) for each in rows]
    behind_a_lamp = ratio("name a lamp", "bee cheese")
    points = [max(0.0, (ratio("name a tree", other) + 2 * behind_a_lamp) / 3) for other in ("moon", "sun fog")]
    point = row["preference/reference_point"]
    assert any(point == pytest.approx(expected, rel=1e-4, abs=1e-5) for expected in points)
    missed = [1.4 / (1 + torch.tensor(0.2 * (own[0] - point)).exp())]
    missed += [1 / (1 + torch.tensor(0.2 * (point - each)).exp()) for each in own[1:]]
    assert row["preference/loss"] == pytest.approx(float(sum(missed)) / 3, rel=1e-4)
    assert row["preference/chosen_reward"] == pytest.approx(0.2 * own[0], rel=1e-4)
    assert row["preference/rejected_reward"] == pytest.approx(0.2 * (own[1] + own[2]) / 2, rel=1e-4)


def test_pairs_are_labelled_responses_to_kto(preference, unpaired):
    """Up to the order of the rows: the whole data is one step here."""
    words = ("--loss", "kto", "--batch-size", 1000, "--eval-fraction", 0)
    paired, single = preference(*words).metrics()[0], preference(*words, "--data", unpaired).metrics()[0]
    for key in paired.keys() - {"time/step_seconds"}:
        assert paired[key] == single[key], key


def test_the_weight_of_a_file_holds_for_both_kinds_of_its_pairs(preference, tuned, sft_run, data, tmp_path):
    rows = read_rows(data / "pairs.jsonl")
    first, second = (write_rows(tmp_path / f"{part}.jsonl", rows[part : part + 6]) for part in (0, 6))
    words = ("--model", sft_run.run, "--reference", tuned.run, "--loss", "kto", "--eval-fraction", 0)
    doubled = preference(*words, "--data", first, f"{second}@2").metrics()[0]
    plain = preference(*words, "--data", first, second).metrics()[0]
    scaled = preference(*words, "--data", f"{first}@3", f"{second}@6").metrics()[0]
    for key in ("preference/loss", "preference/chosen_reward", "preference/reference_point", "optim/grad_norm"):
        assert scaled[key] == pytest.approx(doubled[key], rel=1e-5), "only proportions matter"
        assert doubled[key] != pytest.approx(plain[key], rel=1e-4)


def test_mismatched_responses_are_those_of_other_prompts():
    prompts = list("aababcccaa")
    rows = [Encoded([100 + ord(prompt), row], [False, True]) for row, prompt in enumerate(prompts)]
    for seed in range(20):
        found = mismatched(rows, prompts, seed=seed, most_tokens=9)
        assert [each.ids[0] for each in found] == [row.ids[0] for row in rows], "the prompts stay"
        assert all(prompts[each.ids[1]] != prompt for each, prompt in zip(found, prompts, strict=True))
    assert mismatched(rows, prompts, seed=1, most_tokens=9) != mismatched(rows, prompts, seed=2, most_tokens=9)


def test_a_mismatched_response_is_cut_off_at_the_limit():
    long_prompt, long_response = (
        Encoded([1, 2, 3, 4, 5], [False] * 4 + [True]),
        Encoded([6, 7, 8, 9], [False] + [True] * 3),
    )
    first, second = mismatched([long_prompt, long_response], ["a", "b"], seed=0, most_tokens=5)
    assert (first.ids, first.mask) == ([1, 2, 3, 4, 7], [False] * 4 + [True])
    assert (second.ids, second.mask) == ([6, 5], [False, True])


# The cache of the reference


@pytest.fixture
def broken_off(preference, monkeypatch, tmp_path):
    """A run that was interrupted before its first checkpoint, and the words that it was started with."""

    def run(*settings, step=3):
        log = RunDir.log

        def interrupted(self, number, metrics):
            if number == step:
                raise KeyboardInterrupt
            log(self, number, metrics)

        with monkeypatch.context() as patch:
            patch.setattr(RunDir, "log", interrupted)
            assert preference(*settings, out=tmp_path / "run").code == 130
        return tmp_path / "run" / ".reference"

    return run


def without_times(rows):
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def assert_same_end(resumed, whole):
    assert resumed.code == 0, resumed.said
    assert without_times(resumed.metrics()) == without_times(whole.metrics())
    assert (resumed.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_broken_off_run_uses_the_cache_and_ends_with_the_same_bits(preference, broken_off, tmp_path, loss):
    words = ("--loss", loss, "--checkpoint-every", 2, "--optimizer.lr", 1e-3)
    folder = broken_off(*words, step=6)
    before = (folder / "logprobs.safetensors").stat().st_mtime_ns
    resumed = preference(*words, out=tmp_path / "run")
    assert "resuming from" in resumed.said
    assert f"log-probabilities of the reference: those of {folder}" in resumed.said
    assert (folder / "logprobs.safetensors").stat().st_mtime_ns == before
    assert_same_end(resumed, preference(*words))


def test_the_cache_holds_the_references_log_probabilities(preference, broken_off, data, sft_run):
    folder = broken_off("--eval-fraction", 0)
    stored = load_file(folder / "logprobs.safetensors")
    model, chat = AutoModelForCausalLM.from_pretrained(sft_run.model), load_policy(sft_run.model)[1]
    assert stored["held_out"].shape == (0, 2)
    for row, pair in enumerate(read_rows(data / "pairs.jsonl")[:10]):
        expected = [logprob(model, chat, pair["prompt"], pair[side]) for side in ("chosen", "rejected")]
        assert stored["train"][row].tolist() == pytest.approx(expected, abs=1e-4)


def half_a_file(folder):
    path = folder / "logprobs.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    return "logprobs.safetensors is damaged"


def a_flipped_bit(folder):
    path = folder / "logprobs.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    return "logprobs.safetensors is damaged"


def no_file(folder):
    (folder / "logprobs.safetensors").unlink()
    return "logprobs.safetensors is damaged"


def half_an_identity(folder):
    path = folder / "identity.json"
    path.write_text(path.read_text()[:60])
    return "identity.json is damaged"


def an_identity_of_another_shape(folder):
    (folder / "identity.json").write_text('["reference", "tokenizer", "data", "logprobs"]\n')
    return "identity.json is damaged"


def other(*names):
    def change(folder):
        path = folder / "identity.json"
        record = json.loads(path.read_text())
        assert record.keys() == {"reference", "tokenizer", "data", "precision", "logprobs"}
        path.write_text(json.dumps(record | dict.fromkeys(names, "0" * 64)))
        return f"it is of another {', another '.join(names)}"

    return change


DAMAGES = {
    **{each.__name__: each for each in (half_a_file, a_flipped_bit, no_file, half_an_identity)},
    "an_identity_of_another_shape": an_identity_of_another_shape,
    **{name: other(name) for name in ("reference", "tokenizer", "data", "precision")},
    "tokenizer and data": other("tokenizer", "data"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_cache_that_does_not_fit_is_computed_again(preference, broken_off, tmp_path, tuned, damage):
    folder = broken_off(*STEADY)
    original = (folder / "logprobs.safetensors").read_bytes()
    problem = DAMAGES[damage](folder)
    resumed = preference(*STEADY, out=tmp_path / "run")
    warning = f"warning: {folder} is not used: {problem}; computing the reference's log-probabilities again"
    assert warning in resumed.said.splitlines()
    assert_same_end(resumed, tuned)
    assert (folder / "logprobs.safetensors").read_bytes() == original


def test_the_cache_is_really_what_a_resumed_run_trains_on(preference, broken_off, tmp_path, tuned):
    """Values that were changed together with their checksum reach the loss. The start-up checks see them only where the
    reference is the starting weights, so it is another one here."""
    words = (*STEADY, "--reference", tuned.run)
    folder = broken_off(*words, step=1)
    stored = load_file(folder / "logprobs.safetensors")
    save_file({name: values + torch.tensor([1.0, 0.0]) for name, values in stored.items()}, folder / "x")
    (folder / "x").replace(folder / "logprobs.safetensors")
    record = json.loads((folder / "identity.json").read_text())
    record["logprobs"] = hashlib.sha256((folder / "logprobs.safetensors").read_bytes()).hexdigest()
    (folder / "identity.json").write_text(json.dumps(record))
    margins = [
        run.metrics()[0]["preference/margin"] for run in (preference(*words, out=tmp_path / "run"), preference(*words))
    ]
    assert margins[0] == pytest.approx(margins[1] - 0.1, abs=1e-6)


def test_a_run_that_stopped_before_its_first_step_belongs_to_nobody(preference, broken_off, tuned, sft_run, tmp_path):
    """Another learning rate takes the cache over; another reference, or other rows, does not."""
    folder = broken_off(step=1)
    (tmp_path / "run" / "checkpoints").rmdir()
    for words, used in (
        (("--optimizer.lr", 1e-3), True),
        (("--reference", tuned.run), "another reference"),
        (("--eval-fraction", 0.4), "another data"),
    ):
        shutil.copytree(folder.parent, tmp_path / "copy", dirs_exist_ok=True)
        outcome = preference(*words, out=tmp_path / "copy")
        assert outcome.code == 0, outcome.said
        assert ("those of" in outcome.said) == (used is True)
        assert ("is not used" in outcome.said) == (used is not True)
        assert used is True or f"it is of {used};" in outcome.said
        shutil.rmtree(tmp_path / "copy")


# Bad input


def test_kto_needs_both_kinds_of_response(preference, unpaired, tmp_path):
    for label, advice in ((True, "; to imitate desirable ones alone, use prefloop train sft"), (False, "")):
        rows = [row for row in read_rows(unpaired) if row["label"] is label]
        path = write_rows(tmp_path / f"{label}.jsonl", rows)
        problem = preference("--loss", "kto", "--data", path, "--eval-fraction", 0).problem
        assert problem == (
            f"{path}: label: all {len(rows)} responses to train on are labelled {str(label).lower()}; "
            f"KTO needs desirable and undesirable responses{advice}"
        )


def test_kto_needs_more_than_one_prompt(preference, tmp_path):
    path = write_rows(tmp_path / "one.jsonl", [{"prompt": "name things", "chosen": "bee", "rejected": "fog"}])
    assert preference("--loss", "kto", "--data", path, "--eval-fraction", 0).problem == (
        f"{path}: prompt: all 2 responses to train on answer one prompt; "
        "KTO's reference point needs responses to other prompts: give more prompts"
    )


def test_labelled_responses_are_no_pairs(preference, unpaired):
    assert preference("--data", unpaired).problem.startswith(f"{unpaired}:1: chosen: missing (the row has prompt, c")


def test_demonstrations_have_no_label(preference, data):
    problem = preference("--loss", "kto", "--data", data / "demonstrations.jsonl").problem
    assert problem.startswith(f"{data / 'demonstrations.jsonl'}:1: label: missing (the row has prompt, completion)")


def test_unknown_losses(preference):
    assert preference("--loss", "dpoo").problem == (
        "loss: unknown loss 'dpoo'; did you mean dpo? known: dpo, ipo, robust, kto"
    )
    assert preference("--loss", "cdpo").problem == (
        "loss: unknown loss 'cdpo'; conservative DPO is dpo with --settings.label-smoothing above 0"
    )


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--settings.beta", 0), "--settings.beta: is 0; should be greater than 0"),
        (("--settings.beta", "nan"), "--settings.beta: is NaN; should be a finite number"),
        (("--settings.beta", "inf"), "--settings.beta: is Infinity; should be a finite number"),
        (("--settings.label-smoothing", 0.5), "--settings.label-smoothing: is 0.5; should be less than 0.5"),
        (("--loss", "robust", "--settings.label-smoothing", 0.5), "--settings.label-smoothing: is 0.5; should be less"),
        (("--loss", "robust", "--settings.label-smoothing", -0.1), "--settings.label-smoothing: is -0.1; should be gr"),
        (("--loss", "kto", "--settings.desirable-weight", 0), "--settings.desirable-weight: is 0; should be greater"),
        (("--loss", "kto", "--settings.undesirable-weight", "nan"), "--settings.undesirable-weight: is NaN; should be"),
        (("--loss", "ipo", "--settings.label-smoothing", 0.1), "--settings.label-smoothing: unknown flag"),
        (("--beta", 0.1), "--beta: unknown flag"),
    ],
)
def test_settings_out_of_range(preference, words, problem):
    assert preference(*words).problem.startswith(problem)


def test_a_reference_of_nan(preference, sft_run, tmp_path):
    spoiled = shutil.copytree(sft_run.model, tmp_path / "spoiled")
    weights = load_file(spoiled / "model.safetensors")
    weights["model.norm.weight"].fill_(torch.nan)
    save_file(weights, spoiled / "model.safetensors", metadata={"format": "pt"})
    remedy = "this model gives log-probabilities that are no numbers; train it again"
    assert preference("--reference", spoiled, out=tmp_path / "run").problem == f"{spoiled}: reference: {remedy}"
    assert preference("--model", spoiled).problem == f"{spoiled}: model: {remedy}"
    assert not (tmp_path / "run" / ".reference").exists()


def test_a_reference_equal_to_the_model_is_the_default(preference, sft_run):
    named, plain = preference("--reference", sft_run.run), preference()
    assert without_times(named.metrics()) == without_times(plain.metrics())

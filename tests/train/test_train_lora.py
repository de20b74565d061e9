"""Training with low-rank adapters through the command line: what comes out, and that a broken-off run ends the same."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from prefloop.cli import main
from prefloop.config import dump_yaml, load
from prefloop.models.config import LoraConfig
from prefloop.models.load import load_policy, load_reward_model
from prefloop.rundir import RunDir
from prefloop.train.checkpoint import checkpoints, verify
from prefloop.train.config import RewardConfig, SFTConfig
from prefloop.types import InputError

STAGES = {"sft": "demonstrations", "reward": "pairs"}


@pytest.fixture(scope="module")
def command(data, sft_run):
    """Words of a stage with adapters: dozens of short steps with a checkpoint every fourth."""

    def words(name, out):
        settings = ("--model", sft_run.run, "--data", data / f"{STAGES[name]}.jsonl", "--num-epochs", 2)
        settings += ("--lora.rank", 4, "--optimizer.lr", "3e-3", "--batch-size", 16, "--eval-fraction", 0.1)
        settings += ("--eval-every", 10, "--checkpoint-every", 4, "--out", out)
        return ["train", name, *map(str, settings)]

    return words


@pytest.fixture(scope="module")
def unbroken(prefloop, command, tmp_path_factory):
    """Each stage run in one go."""
    done = {name: prefloop(" ".join(command(name, tmp_path_factory.mktemp(f"lora-{name}") / "run"))) for name in STAGES}
    for outcome in done.values():
        assert outcome.code == 0, outcome.said
    return done


def weights(directory):
    return load_file(directory / "model.safetensors")


@pytest.mark.parametrize("name", STAGES)
def test_the_result_is_a_merged_model_with_the_adapters_beside_it(unbroken, sft_run, name):
    outcome = unbroken[name]
    assert outcome.answer["outputs"] == {"model": "model", "adapter": "adapter"}
    factory = {"sft": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}[name]
    model, report = factory.from_pretrained(outcome.model, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert (outcome.model / "tokenizer.json").read_text() == (sft_run.model / "tokenizer.json").read_text()
    base, merged = weights(sft_run.model), weights(outcome.model)
    changed = {key for key in base if not torch.equal(base[key], merged[key])}
    assert changed == {key for key in base if key.split(".")[-2].endswith("_proj")}
    # Each change has the rank of the adapters.
    for key in changed:
        values = torch.linalg.svdvals((merged[key] - base[key]).double())
        assert float(values[4:].max()) < 1e-4 * float(values[0]), key
    read = {"sft": load_policy, "reward": load_reward_model}[name](outcome.run / "adapter")[0]
    tensors = dict(read.state_dict())
    assert all(torch.equal(tensors[key], tensor) for key, tensor in merged.items())
    assert read.config.to_dict().get("reward_std") == model.config.to_dict().get("reward_std")


def test_the_stages_learn(unbroken):
    sft, reward = unbroken["sft"].metrics(), unbroken["reward"].metrics()
    held_out = [row["eval/loss"] for row in sft if "eval/loss" in row]
    assert held_out[-1] <= held_out[0] and sft[0]["sft/loss"] < 2.9, "it starts where the first run ended"
    assert reward[-1]["eval/accuracy"] > 0.9
    said = [line for line in unbroken["sft"].said.splitlines() if line.startswith("LoRA on ")]
    # Rank 4 beside two layers of q, k, v, o (32 -> 32), gate, up (32 -> 96) and down (96 -> 32).
    assert len(said) == 1 and said[0].startswith(f"LoRA on LlamaForCausalLM: {4 * 2 * (4 * 64 + 3 * 128):,} of ")


def test_checkpoints_hold_adapters_only(unbroken, sft_run):
    whole = (sft_run.model / "model.safetensors").stat().st_size
    for name, directory in (("sft", "policy"), ("reward", "reward")):
        newest = checkpoints(unbroken[name].run / "checkpoints")[-1]
        assert verify(newest) is None
        assert not list(newest.rglob("model.safetensors"))
        assert (newest / directory / "adapter_model.safetensors").stat().st_size < whole / 4
        assert (newest / "state" / f"optimizer-{directory}.safetensors").stat().st_size < whole / 2


def assert_same_end(resumed, whole):
    assert resumed.code == 0, resumed.said
    rows = [
        [{key: value for key, value in row.items() if not key.startswith("time/")} for row in outcome.metrics()]
        for outcome in (resumed, whole)
    ]
    assert rows[0] == rows[1]
    for file in ("model/model.safetensors", "model/config.json", "adapter/adapter_model.safetensors"):
        assert (resumed.run / file).read_bytes() == (whole.run / file).read_bytes(), file
    for file in ("adapter_config.json", "prefloop.json"):
        assert (resumed.run / "adapter" / file).read_text() == (whole.run / "adapter" / file).read_text()


@pytest.mark.parametrize("name", STAGES)
def test_a_killed_run_ends_with_the_bits_of_an_unbroken_one(prefloop, command, unbroken, tmp_path, name):
    words = command(name, tmp_path / "run")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["prefloop.train.sft", "prefloop.train.reward"])
    process = context.Process(target=main, args=(words,))
    process.start()
    give_up = time.monotonic() + 60
    while len(checkpoints(tmp_path / "run" / "checkpoints")) < 2:
        assert process.exitcode is None and time.monotonic() < give_up
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = prefloop(" ".join(words))
    assert "resuming from" in resumed.said
    assert_same_end(resumed, unbroken[name])


@pytest.mark.parametrize("name", STAGES)
def test_a_run_stopped_while_it_writes_its_result_writes_it_again(
    prefloop, command, unbroken, tmp_path, monkeypatch, name
):
    words = command(name, tmp_path / "run")
    with monkeypatch.context() as patch:

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(RunDir, "finish", interrupted)
        assert prefloop(" ".join(words)).code == 130
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "run" / ".adapter.tmp").mkdir()
    assert_same_end(prefloop(" ".join(words)), unbroken[name])
    assert not list((tmp_path / "run").glob(".*"))


def test_a_damaged_adapter_is_passed_over(prefloop, command, unbroken, tmp_path, monkeypatch):
    words = command("reward", tmp_path / "run")
    log = RunDir.log

    def interrupted(self, number, metrics):
        if number == 14:
            raise KeyboardInterrupt
        log(self, number, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "log", interrupted)
        assert prefloop(" ".join(words)).code == 130
    path = checkpoints(tmp_path / "run" / "checkpoints")[-1] / "reward" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    resumed = prefloop(" ".join(words))
    assert "adapter_model.safetensors does not match its checksum" in resumed.said
    assert_same_end(resumed, unbroken["reward"])


def test_adapters_are_a_model_for_every_command(prefloop, unbroken, data, tmp_path):
    pairs, adapter = data / "pairs.jsonl", unbroken["reward"].run / "adapter"
    answers = [prefloop("reward eval", model, pairs).answer for model in (unbroken["reward"].run, adapter)]
    # Merging again may round otherwise.
    assert answers[0]["log_loss"] == pytest.approx(answers[1]["log_loss"], rel=1e-6)
    assert answers[0]["accuracy"] > 0.9
    policy = unbroken["sft"].run
    for model, out in ((policy, "a.jsonl"), (policy / "adapter", "b.jsonl")):
        sampled = prefloop("sample", model, data / "prompts.jsonl", "--out", tmp_path / out, "--max-new-tokens", 8)
        assert sampled.code == 0, sampled.said
    rows = [(tmp_path / name).read_text().splitlines() for name in ("a.jsonl", "b.jsonl")]
    assert [json.loads(row)["response"] for row in rows[0]] == [json.loads(row)["response"] for row in rows[1]]


# Settings


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, None),
        ({"lora.rank": "4"}, LoraConfig(rank=4)),
        ({"lora.alpha": "8"}, LoraConfig(alpha=8)),
        (
            {"lora.target_modules": ["q_proj", "v_proj"]},
            LoraConfig(target_modules=("q_proj", "v_proj")),
        ),
    ],
)
def test_any_of_the_settings_switches_adapters_on(overrides, expected, tmp_path):
    for kind in (SFTConfig, RewardConfig):
        config = load(kind, overrides={"model": "m", "data": ["a.jsonl"], **overrides})
        assert config.lora == expected
        (tmp_path / "config.yaml").write_text(dump_yaml(config))
        assert load(kind, yaml_path=tmp_path / "config.yaml") == config


def test_adapters_in_a_file(tmp_path):
    text = "model: m\ndata: [a.jsonl]\nlora: {rank: 8}\n"
    (tmp_path / "run.yaml").write_text(text)
    assert load(SFTConfig, yaml_path=tmp_path / "run.yaml").lora == LoraConfig(rank=8)
    assert load(SFTConfig, yaml_path=tmp_path / "run.yaml", overrides={"lora.rank": "2"}).lora == LoraConfig(rank=2)
    (tmp_path / "run.yaml").write_text(text.replace("{rank: 8}", "null"))
    assert load(SFTConfig, yaml_path=tmp_path / "run.yaml").lora is None
    (tmp_path / "run.yaml").write_text(text.replace("rank", "rnak"))
    with pytest.raises(InputError, match=r"run.yaml:3: lora.rnak: unknown key; did you mean rank\?"):
        load(SFTConfig, yaml_path=tmp_path / "run.yaml")


def test_what_is_wrong_is_said_in_one_line(prefloop, command, data, tmp_path):
    words = command("sft", tmp_path / "run")
    refused = prefloop(" ".join([*words, "--lora.target-modules", "q_proj", "v_porj"]))
    assert refused.problem.startswith(
        "lora.target_modules: the decoder has no linear layer called v_porj; did you mean v_proj? known: down_proj, "
    )
    assert prefloop(" ".join([*words, "--lora.rank", "0"])).problem == "--lora.rank: is 0; should be greater than 0"
    scratch = prefloop("train sft", "--data", data / "demonstrations.jsonl", "--lora.rank", 4, "--out", tmp_path / "s")
    assert scratch.problem.endswith("lora trains beside the weights of a model: give one to start from (--model)")


@pytest.fixture(scope="module")
def learned(prefloop, command, tmp_path_factory):
    """The losses of a few steps with other settings."""

    def losses(name, *settings):
        fewer = ("--num-epochs", "1", "--batch-size", "64", "--checkpoint-every", "100")
        words = [*command(name, tmp_path_factory.mktemp(f"lora-{name}") / "run"), *fewer, *settings]
        outcome = prefloop(" ".join(words))
        assert outcome.code == 0, outcome.said
        return [row[f"{name}/loss"] for row in outcome.metrics()]

    return losses


@pytest.mark.parametrize("name", STAGES)
def test_each_setting_has_an_effect_and_the_first_loss_is_the_base_models(learned, name):
    changed = [(), ("--lora.rank", "2"), ("--lora.alpha", "4"), ("--lora.target-modules", "q_proj", "up_proj")]
    runs = [learned(name, *settings) for settings in changed]
    assert len({run[-1] for run in runs}) == len(runs)
    # Fresh adapters are nothing, whatever their settings: all begin with the loss of the same model.
    assert len({run[0] for run in runs}) == 1

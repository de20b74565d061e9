"""Low-rank adapters against hand-computed sums, against peft's own loader and against plain transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from prefloop.functional.losses import nll_loss
from prefloop.models.adapter_files import CONFIG_FILE, WEIGHTS_FILE, load_adapters, write_adapters, write_origin
from prefloop.models.batching import TokenBatch, collate
from prefloop.models.chat import Chat, train_chat
from prefloop.models.config import LoraConfig
from prefloop.models.forward import compare_to_reference, response_logits, response_logprobs, sequence_scores
from prefloop.models.load import (
    is_reward_model,
    load_policy,
    load_reward_model,
    new_reward_model,
    save_adapters,
    save_model,
    score_head,
)
from prefloop.models.lora import (
    adapted_layers,
    adapter_tensors,
    adapters_off,
    add_adapters,
    base_sha256,
    is_adapted,
    merged,
)
from prefloop.rollout.engine import sample
from prefloop.train.config import OptimizerConfig
from prefloop.train.loop import make_optimizer
from prefloop.types import InputError, Message

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TEXTS = ["the harbour museum opens at nine and closes at five.", "what is the meaning of the town hall?"]
RANK, ALPHA = 3, 12
CONFIG = LoraConfig(rank=RANK, alpha=ALPHA)
FAMILIES = ("llama", "llama tied", "qwen2", "qwen3", "gpt2")


@pytest.fixture(scope="module")
def chat() -> Chat:
    return train_chat(TEXTS * 20, vocab_size=330)


def tiny(family: str, chat: Chat) -> PreTrainedModel:
    # transformers adds a token of its own to a tokenizer that it takes for Qwen's.
    size = len(chat.tokenizer) + 1
    ids = {"pad_token_id": chat.pad_id, "bos_token_id": None, "eos_token_id": chat.tokenizer.eos_token_id}
    shape: dict[str, Any] = {"vocab_size": size, "hidden_size": 32, "intermediate_size": 48, **ids}
    shape |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(5)
    match family:
        case "llama" | "llama tied":
            return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=family == "llama tied"))
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**shape))
        case "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=8))
        case _:
            return GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, **ids))


@pytest.fixture(scope="module")
def bases(chat: Chat, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model directory of each family."""
    root = tmp_path_factory.mktemp("bases")
    for family in FAMILIES:
        save_model(tiny(family, chat), chat, root / family)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, bases: dict[str, Path]) -> Path:
    return bases[request.param]


@pytest.fixture
def llama(bases: dict[str, Path]) -> Path:
    return bases["llama"]


@pytest.fixture(scope="module")
def batch(chat: Chat) -> TokenBatch:
    answers = ["it opens at nine.", "no.", "the town hall is a museum, a hall and a harbour."]
    rows = [chat.encode_response((Message("user", text),), answer) for text in TEXTS for answer in answers]
    return collate(rows, pad_id=chat.pad_id)


def adapted(base: Path, *, trained: bool = True, config: LoraConfig = CONFIG, seed: int = 0) -> PreTrainedModel:
    """A policy with adapters; `trained`: with a B that is not zero."""
    model = load_policy(base, device=torch.device("cpu"))[0]
    add_adapters(model, config, base=base, seed=seed)
    if trained:
        move(model)
    return model


def move(model: PreTrainedModel) -> None:
    noise = torch.Generator().manual_seed(9)
    for name, tensor in adapter_tensors(model).items():
        if ".lora_B." in name or ".score." in name:
            tensor += 0.3 * torch.randn(tensor.shape, generator=noise)


def logits_of(model: PreTrainedModel, batch: TokenBatch) -> torch.Tensor:
    with torch.no_grad():
        return response_logits(model, batch)


# Fresh adapters, and adapters switched off


def test_fresh_adapters_change_no_bit_and_the_kl_to_oneself_is_zero(base: Path, batch: TokenBatch) -> None:
    before = logits_of(load_policy(base)[0], batch)
    model = adapted(base, trained=False)
    assert torch.equal(logits_of(model, batch), before)
    logprobs, reference, full, _ = compare_to_reference(model, model, batch, temperature=0.7)
    assert torch.equal(logprobs, reference)
    assert float(full.abs().max()) == 0


def test_a_model_without_its_adapters_is_the_reference(base: Path, batch: TokenBatch) -> None:
    frozen = load_policy(base)[0]
    model = adapted(base)
    with adapters_off(model):
        assert torch.equal(logits_of(model, batch), logits_of(frozen, batch))
    # Against a second copy of the base in memory: the same numbers.
    for mine, copied in zip(
        compare_to_reference(model, model, batch, temperature=0.7),
        compare_to_reference(model, frozen, batch, temperature=0.7),
        strict=True,
    ):
        assert torch.equal(mine, copied)
    assert float(compare_to_reference(model, model, batch, temperature=0.7)[2].sum()) > 0.01
    assert all(matrix.requires_grad for name, matrix in model.named_parameters() if ".lora_" in name)


def test_a_model_without_adapters_is_never_compared_to_itself(llama: Path, batch: TokenBatch) -> None:
    model = load_policy(llama)[0]
    assert not is_adapted(model)
    with pytest.raises(AssertionError, match="compared to itself"):
        compare_to_reference(model, model, batch, temperature=1.0)


def test_the_adapters_are_alpha_over_rank_b_a(bases: dict[str, Path]) -> None:
    """W + (alpha / rank) B A, with a matrix of GPT-2 stored the other way round."""
    for family, name in (("llama", "model.layers.1.mlp.down_proj"), ("gpt2", "transformer.h.1.attn.c_attn")):
        model = adapted(bases[family])
        tensors = {key: value.double().numpy() for key, value in adapter_tensors(model).items()}
        down, up = (tensors[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
        before = model.get_submodule(name).get_parameter("base_layer.weight").detach().double().numpy().copy()
        change = ALPHA / RANK * up @ down
        with merged(model):
            after = model.get_submodule(name).get_parameter("base_layer.weight").detach().double().numpy()
            np.testing.assert_allclose(after, before + (change.T if family == "gpt2" else change), atol=1e-7)
        assert np.abs(change).max() > 0.1


def test_the_seed_alone_decides_the_adapters(llama: Path) -> None:
    torch.manual_seed(1)
    first = adapter_tensors(adapted(llama, trained=False, seed=4))
    torch.manual_seed(2)
    same, other = (adapter_tensors(adapted(llama, trained=False, seed=seed)) for seed in (4, 5))
    assert all(torch.equal(first[name], same[name]) for name in first)
    drawn = torch.cat([value.flatten() for name, value in first.items() if "q_proj.lora_A" in name])
    # Uniform within 1/sqrt(32): the variance is a third of the bound's square.
    assert float(drawn.abs().max()) <= 32**-0.5
    assert float(drawn.var()) == pytest.approx(1 / 32 / 3, rel=0.3)
    assert not any(torch.equal(first[name], other[name]) for name in first if ".lora_A." in name)
    assert all(not value.any() for name, value in first.items() if ".lora_B." in name)


# What is trained


def test_gradients_reach_adapters_only_and_the_optimiser_is_small(base: Path, batch: TokenBatch) -> None:
    model = adapted(base, trained=False)
    loss = nll_loss(response_logprobs(model, batch), batch.response_mask, denominator=torch.tensor(1.0)).loss
    loss.backward()
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            assert weight.grad is not None and float(weight.grad.abs().sum()) > 0, name
        elif ".lora_A." in name:
            # d loss / d A = B^T ..., and B is zero.
            assert weight.grad is not None and float(weight.grad.abs().sum()) == 0, name
        else:
            assert weight.grad is None and not weight.requires_grad, name
    optimizer = make_optimizer(model, OptimizerConfig())
    optimizer.step()
    moments = sum(
        tensor.numel() for state in optimizer.state.values() for key, tensor in state.items() if key != "step"
    )
    widths = [layer.in_features + layer.out_features for _, layer in adapted_layers(model)]
    assert moments == 2 * RANK * sum(widths)


def test_training_and_merging_in_turn_moves_the_policy_and_never_its_reference(base: Path, batch: TokenBatch) -> None:
    model = adapted(base, trained=False)
    frozen, before = logits_of(load_policy(base)[0], batch), base_sha256(model)
    optimizer = make_optimizer(model, OptimizerConfig(lr=3e-3))
    losses = []
    for _ in range(20):
        with merged(model):
            logits_of(model, batch)
        denominator = batch.response_mask.sum()
        loss = nll_loss(response_logprobs(model, batch), batch.response_mask, denominator=denominator).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    # A frozen head with weights of 0.02 on a normalised state of width 32 reaches logits of 0.6 at most.
    assert losses[-1] < losses[0] - 0.1
    assert base_sha256(model) == before
    with adapters_off(model):
        assert torch.equal(logits_of(model, batch), frozen)


def test_all_linear_layers_of_the_decoder_and_nothing_else(bases: dict[str, Path]) -> None:
    attention, gated = ["q_proj", "k_proj", "v_proj", "o_proj"], ["gate_proj", "up_proj", "down_proj"]
    expected = {
        "llama": sorted(attention + gated),
        "qwen2": sorted(attention + gated),
        "gpt2": sorted(["c_attn", "c_proj", "c_fc", "c_proj"]),
    }
    for family, names in expected.items():
        found = [name.rpartition(".")[2] for name, _ in adapted_layers(adapted(bases[family]))]
        assert sorted(found) == sorted(names * 2)
    some = adapted(bases["qwen3"], config=LoraConfig(rank=2, target_modules=("q_proj", "v_proj")))
    assert [name.rpartition(".")[2] for name, _ in adapted_layers(some)] == ["q_proj", "v_proj"] * 2


@pytest.mark.parametrize("name", ["q_porj", "lm_head", "embed_tokens"])
def test_a_target_that_is_no_layer_of_the_decoder_is_refused(llama: Path, name: str) -> None:
    with pytest.raises(
        InputError, match=rf"lora.target_modules: the decoder has no linear layer called {name}.*q_proj"
    ):
        adapted(llama, config=LoraConfig(target_modules=("v_proj", name)))


def test_the_head_of_a_reward_model_is_trained_and_stored(llama: Path, batch: TokenBatch) -> None:
    model = new_reward_model(llama, seed=1)[0]
    before = sequence_scores(model, batch).detach()
    add_adapters(model, CONFIG, base=llama, seed=0)
    assert torch.equal(sequence_scores(model, batch), before)
    sequence_scores(model, batch).sum().backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert "score.weight" in trained and all(".lora_" in name for name in trained - {"score.weight"})
    assert torch.equal(adapter_tensors(model)["base_model.model.score.weight"], score_head(model).weight)


def test_the_numbers_are_said_once(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapted(llama)
    # Rank 3 over two layers of q, o (32 -> 32), k, v (32 -> 16), gate, up (32 -> 48), down (48 -> 32).
    trained = 3 * 2 * (2 * 64 + 2 * 48 + 3 * 80)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("LoRA on ")]
    assert len(said) == 1 and said[0].startswith(f"LoRA on LlamaForCausalLM: {trained:,} of ")


# Merging


def test_sampling_with_merged_weights_has_the_logprobs_of_the_trainer(base: Path, chat: Chat) -> None:
    model = adapted(base)
    before = base_sha256(model), [weight.data_ptr() for weight in model.parameters()]
    prompts = [chat.encode_prompt((Message("user", text),)) for text in [*TEXTS, "museum", "the hall"] * 4]
    with merged(model):
        drawn = sample(
            model, prompts, max_new_tokens=16, temperature=0.7, stop_ids=chat.stop_ids, pad_id=chat.pad_id, seed=3
        )
    assert (base_sha256(model), [weight.data_ptr() for weight in model.parameters()]) == before
    ids = [prompt + row.ids for prompt, row in zip(prompts, drawn, strict=True)]
    lengths = torch.tensor([len(row) for row in ids])
    padded = torch.tensor([row + [chat.pad_id] * (int(lengths.max()) - len(row)) for row in ids])
    place = torch.arange(padded.shape[1])
    mask = (place >= torch.tensor([len(prompt) for prompt in prompts])[:, None]) & (place < lengths[:, None])
    found = response_logprobs(model, TokenBatch(padded, lengths, mask), temperature=0.7)[mask].detach()
    sampled = torch.tensor([value for row in drawn for value in row.logprobs])
    assert float((found - sampled).abs().max()) < 1e-5
    with adapters_off(model):
        frozen = response_logprobs(model, TokenBatch(padded, lengths, mask), temperature=0.7)[mask].detach()
    assert float((frozen - sampled).abs().mean()) > 0.01, "with the adapters off they would be others"


def test_adapters_of_half_precision_weights_are_fp32(base: Path, batch: TokenBatch) -> None:
    model = load_policy(base)[0].bfloat16()
    before = logits_of(model, batch)
    add_adapters(model, CONFIG, base=base, seed=0)
    assert {tensor.dtype for tensor in adapter_tensors(model).values()} == {torch.float32}
    assert torch.equal(logits_of(model, batch), before)
    move(model)
    fingerprint, unmerged = base_sha256(model), logits_of(model, batch)
    with merged(model):
        assert {weight.dtype for name, weight in model.named_parameters() if ".lora_" not in name} == {torch.bfloat16}
        # A bfloat16 has eight bits: 0.4 % of logits of about 1.
        assert float((logits_of(model, batch) - unmerged).abs().mean()) < 0.01
    assert base_sha256(model) == fingerprint


def test_an_error_while_merged_leaves_the_frozen_weights(llama: Path, batch: TokenBatch) -> None:
    model = adapted(llama)
    before, trained = base_sha256(model), logits_of(model, batch)
    with pytest.raises(KeyError), merged(model):
        raise KeyError
    assert base_sha256(model) == before
    assert torch.equal(logits_of(model, batch), trained)


def test_merging_a_hundred_times_is_merging_once(llama: Path) -> None:
    """What subtracting the sums again would not give."""
    model = adapted(llama)
    before = base_sha256(model)
    for _ in range(100):
        with merged(model):
            pass
    assert base_sha256(model) == before


def test_off_inside_merged_is_a_bug(llama: Path) -> None:
    model = adapted(llama)
    with merged(model), pytest.raises(AssertionError), adapters_off(model):
        pass
    with adapters_off(model), pytest.raises(AssertionError), merged(model):
        pass


def test_the_fingerprint_is_of_the_frozen_weights(llama: Path, bases: dict[str, Path], chat: Chat) -> None:
    plain = base_sha256(load_policy(llama)[0])
    assert base_sha256(adapted(llama)) == plain
    assert base_sha256(adapted(bases["qwen2"])) != plain
    model = adapted(llama)
    weight = adapted_layers(model)[3][1].get_base_layer().get_parameter("weight")
    weight.data[0, 0] = torch.nextafter(weight.data[0, 0], torch.tensor(9.0))
    assert base_sha256(model) != plain


# Files


def test_peft_reads_the_adapters(base: Path, chat: Chat, batch: TokenBatch, tmp_path: Path) -> None:
    model = adapted(base)
    save_adapters(model, chat, tmp_path)
    theirs = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path))
    with torch.no_grad():
        mask = batch.response_mask[:, 1:]
        found = theirs(input_ids=batch.input_ids).logits[:, :-1][mask]
        torch.testing.assert_close(logits_of(model, batch), found, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found, logits_of(load_policy(base)[0], batch), atol=1e-2)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_peft_reads_the_adapters_and_head_of_a_reward_model(
    bases: dict[str, Path], family: str, chat: Chat, batch: TokenBatch, tmp_path: Path
) -> None:
    model = new_reward_model(bases[family], seed=1)[0]
    add_adapters(model, CONFIG, base=bases[family], seed=0)
    move(model)
    save_adapters(model, chat, tmp_path)
    fresh = AutoModelForSequenceClassification.from_pretrained(bases[family], num_labels=1, pad_token_id=chat.pad_id)
    theirs = peft.PeftModel.from_pretrained(fresh, str(tmp_path))
    assert isinstance(theirs, peft.PeftModelForSequenceClassification)
    attention = (torch.arange(batch.input_ids.shape[1]) < batch.lengths[:, None]).long()
    with torch.no_grad():
        scores = theirs(input_ids=batch.input_ids, attention_mask=attention).logits.squeeze(-1)
        torch.testing.assert_close(sequence_scores(model, batch), scores, atol=1e-6, rtol=1e-5)


def test_a_merged_model_is_one_for_plain_transformers(
    base: Path, chat: Chat, batch: TokenBatch, tmp_path: Path
) -> None:
    model = adapted(base)
    before = base_sha256(model)
    save_model(model, chat, tmp_path / "merged")
    assert base_sha256(model) == before
    plain, report = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert type(plain) is type(model)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    torch.testing.assert_close(logits_of(plain, batch), logits_of(model, batch), atol=2e-6, rtol=1e-5)
    # The adapters alone, given as a model, are the same model to the bit.
    save_adapters(model, chat, tmp_path / "adapter")
    read, _ = load_policy(tmp_path / "adapter")
    assert not is_adapted(read) and type(read) is type(model)
    assert torch.equal(logits_of(read, batch), logits_of(plain, batch))


def test_stored_adapters_come_back_bit_for_bit(llama: Path, tmp_path: Path) -> None:
    model = adapted(llama)
    write_adapters(model, tmp_path / "a")
    other = adapted(llama, trained=False, seed=7)
    load_adapters(other, tmp_path / "a")
    write_adapters(other, tmp_path / "b")
    for file in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with pytest.raises(AssertionError):
        load_adapters(adapted(llama, config=LoraConfig(rank=RANK + 1)), tmp_path / "a")


def test_a_reward_model_as_adapters_keeps_its_scale(llama: Path, chat: Chat, batch: TokenBatch, tmp_path: Path) -> None:
    model = new_reward_model(llama, seed=1)[0]
    add_adapters(model, CONFIG, base=llama, seed=0)
    move(model)
    model.config.reward_mean, model.config.reward_std = 0.25, 2.0
    save_adapters(model, chat, tmp_path)
    write_origin(model, tmp_path)
    assert is_reward_model(tmp_path, "reward")
    read, _ = load_reward_model(tmp_path)
    assert (read.config.reward_mean, read.config.reward_std) == (0.25, 2.0)
    torch.testing.assert_close(sequence_scores(read, batch), sequence_scores(model, batch), atol=1e-6, rtol=1e-5)


def test_a_reward_model_starts_from_a_policy_given_as_adapters(
    llama: Path, chat: Chat, batch: TokenBatch, tmp_path: Path
) -> None:
    model = adapted(llama)
    save_adapters(model, chat, tmp_path / "adapter")
    save_model(model, chat, tmp_path / "merged")
    scores = [sequence_scores(new_reward_model(tmp_path / name, seed=1)[0], batch) for name in ("adapter", "merged")]
    assert torch.equal(*scores)


def test_adapters_on_adapters(llama: Path, chat: Chat, batch: TokenBatch, tmp_path: Path) -> None:
    save_adapters(adapted(llama), chat, tmp_path / "first")
    second = load_policy(tmp_path / "first")[0]
    add_adapters(second, CONFIG, base=tmp_path / "first", seed=1)
    move(second)
    save_adapters(second, chat, tmp_path / "second")
    write_origin(second, tmp_path / "second")
    torch.testing.assert_close(
        logits_of(load_policy(tmp_path / "second")[0], batch), logits_of(second, batch), atol=1e-5, rtol=1e-5
    )


@pytest.fixture
def theirs(llama: Path, tmp_path: Path) -> Iterator[tuple[Path, peft.PeftModel]]:
    """Adapters that peft made and wrote itself, of a kind that we do not train."""
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=2, lora_alpha=8, use_rslora=True, use_dora=True, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(llama), settings)
    model.save_pretrained(str(tmp_path / "theirs"))
    yield tmp_path / "theirs", model.eval()


def test_adapters_of_other_tools_are_read(theirs: tuple[Path, peft.PeftModel], batch: TokenBatch) -> None:
    directory, model = theirs
    assert not (directory / "tokenizer.json").exists()
    read, chat = load_policy(directory)
    assert chat.tokenizer.chat_template is not None
    with torch.no_grad():
        found = model(input_ids=batch.input_ids).logits[:, :-1][batch.response_mask[:, 1:]]
    torch.testing.assert_close(logits_of(read, batch), found, atol=5e-6, rtol=1e-5)


def test_a_new_pad_token_makes_two_loads_one_model(tmp_path: Path, chat: Chat, batch: TokenBatch) -> None:
    """The row of a token that the base has not: random, it would differ between policy, reference and a resumed run."""
    save_model(tiny("llama", chat), chat, tmp_path)
    tokenizer = json.loads((tmp_path / "tokenizer_config.json").read_text())
    tokenizer["pad_token"] = tokenizer["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = json.loads((tmp_path / "config.json").read_text())
    save_model(LlamaForCausalLM(LlamaConfig(**{**config, "vocab_size": len(chat.tokenizer) - 1})), chat, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    first, second = (load_policy(tmp_path)[0] for _ in range(2))
    assert first.get_input_embeddings().weight.shape[0] == len(chat.tokenizer)
    assert base_sha256(first) == base_sha256(second)
    logits = logits_of(first, batch)
    torch.testing.assert_close(logits[:, -1], logits[:, :-1].mean(1), atol=1e-5, rtol=1e-5)


def changed(directory: Path, **values: object) -> None:
    path = directory / CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_base_that_is_not_there_is_named(llama: Path, chat: Chat, tmp_path: Path) -> None:
    save_adapters(adapted(llama), chat, tmp_path)
    for name in ("meta-llama/Llama-3.2-1B", "/models/gone"):
        changed(tmp_path, base_model_name_or_path=name)
        with pytest.raises(InputError, match=f"the base model of this adapter is not a directory here: {name}; put"):
            load_policy(tmp_path)
    changed(tmp_path, base_model_name_or_path=None)
    with pytest.raises(InputError, match="none is named"):
        load_policy(tmp_path)


def test_a_base_with_other_weights_is_refused(llama: Path, chat: Chat, tmp_path: Path) -> None:
    model = adapted(llama)
    save_adapters(model, chat, tmp_path / "adapter")
    write_origin(model, tmp_path / "adapter")
    load_policy(tmp_path / "adapter")
    torch.manual_seed(6)
    save_model(LlamaForCausalLM(model.config), chat, tmp_path / "other")
    changed(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "other"))
    with pytest.raises(InputError, match="other are not those that this adapter was trained on"):
        load_policy(tmp_path / "adapter")


def test_adapters_of_another_shape_are_refused(llama: Path, bases: dict[str, Path], chat: Chat, tmp_path: Path) -> None:
    wide = LlamaConfig(**{**tiny("llama", chat).config.to_dict(), "hidden_size": 64})
    save_model(LlamaForCausalLM(wide), chat, tmp_path / "wide")
    save_adapters(adapted(llama), chat, tmp_path / "adapter")
    for other in (tmp_path / "wide", bases["gpt2"]):
        changed(tmp_path / "adapter", base_model_name_or_path=str(other))
        with pytest.raises(InputError, match=f"{tmp_path / 'adapter'}: model: peft cannot load this adapter: "):
            load_policy(tmp_path / "adapter")


def test_a_setting_that_peft_does_not_know_is_not_passed_over(llama: Path, chat: Chat, tmp_path: Path) -> None:
    save_adapters(adapted(llama), chat, tmp_path)
    changed(tmp_path, use_the_next_idea=True)
    with pytest.raises(InputError, match=r"peft cannot load this adapter: .*use_the_next_idea"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("layers", "problem"), [(1, "has weights that the model has not"), (3, "lacks weights of the model")]
)
def test_adapters_of_a_deeper_or_shallower_model_are_refused(
    llama: Path, chat: Chat, tmp_path: Path, layers: int, problem: str
) -> None:
    other = LlamaConfig(**{**tiny("llama", chat).config.to_dict(), "num_hidden_layers": layers})
    save_model(LlamaForCausalLM(other), chat, tmp_path / "other")
    save_adapters(adapted(llama), chat, tmp_path / "adapter")
    changed(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "other"))
    with pytest.raises(InputError, match=problem):
        load_policy(tmp_path / "adapter")


def test_what_is_no_adapter_to_merge_is_refused(llama: Path, chat: Chat, tmp_path: Path) -> None:
    save_adapters(adapted(llama), chat, tmp_path)
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        load_policy(tmp_path)
    changed(tmp_path, peft_type="PROMPT_TUNING")
    with pytest.raises(InputError, match="adapters of type PROMPT_TUNING cannot be merged"):
        load_policy(tmp_path)
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(InputError, match="broken JSON"):
        load_policy(tmp_path)


def test_adapters_of_a_reward_model_are_no_policy(llama: Path, chat: Chat, tmp_path: Path) -> None:
    model = new_reward_model(llama, seed=1)[0]
    add_adapters(model, CONFIG, base=llama, seed=0)
    save_adapters(model, chat, tmp_path)
    with pytest.raises(InputError):
        load_policy(tmp_path)
    save_adapters(adapted(llama), chat, tmp_path / "policy")
    with pytest.raises(InputError, match="a language model, not a reward model"):
        load_reward_model(tmp_path / "policy")

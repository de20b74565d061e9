"""Forward passes against transformers and against themselves under padding."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat, Encoded, train_chat
from prefloop.models.config import ScratchConfig
from prefloop.models.forward import response_logprobs, sequence_scores, token_values
from prefloop.models.load import load_policy, load_reward_model, new_policy, new_reward_model, save_model
from prefloop.rollout.engine import sample
from prefloop.types import InputError, Message

TEXTS = ["the harbour museum opens at nine and closes at five.", "what is the meaning of the town hall?"]


@pytest.fixture(scope="module")
def chat() -> Chat:
    return train_chat(TEXTS * 20, vocab_size=330)


@pytest.fixture(scope="module")
def policy(chat: Chat) -> PreTrainedModel:
    shape = ScratchConfig(hidden_size=32, num_layers=2, num_heads=2, vocab_size=330)
    return new_policy(shape, chat, seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def rows(chat: Chat) -> list[Encoded]:
    answers = ["it opens at nine.", "no.", "the town hall is a museum, a hall and a harbour."]
    return [chat.encode_response((Message("user", text),), answer) for text in TEXTS for answer in answers]


def test_the_prompt_is_a_token_prefix_and_the_stop_token_counts(chat: Chat) -> None:
    prompt = (Message("user", TEXTS[0]),)
    encoded = chat.encode_response(prompt, "at nine")
    prefix = chat.encode_prompt(prompt)
    assert encoded.ids[: len(prefix)] == prefix
    assert encoded.mask == [False] * len(prefix) + [True] * (len(encoded.ids) - len(prefix))
    assert encoded.ids[-1] in chat.stop_ids
    cut_off = chat.encode_response(prompt, "at nine", finished=False)
    assert cut_off.ids == encoded.ids[:-1]


def test_loss_counts_on_every_assistant_turn_and_on_no_other(chat: Chat) -> None:
    turns = [("user", "one"), ("assistant", "nine"), ("user", "two"), ("assistant", "five")]
    encoded = chat.encode([Message(role, text) for role, text in turns], num_context=0)  # type: ignore[arg-type]
    answers = [token for token, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert chat.decode_with_special(answers).replace(" ", "") == "nine<|end|>five<|end|>"


def test_logprobs_are_those_of_transformers(policy: PreTrainedModel, chat: Chat, rows: list[Encoded]) -> None:
    batch = collate(rows, pad_id=chat.pad_id)
    found = response_logprobs(policy, batch).detach()
    for row, encoded in enumerate(rows):
        logits = policy(input_ids=torch.tensor([encoded.ids])).logits[0].detach()
        for place in range(1, len(encoded.ids)):
            expected = torch.log_softmax(logits[place - 1], -1)[encoded.ids[place]] if encoded.mask[place] else 0.0
            assert float(found[row, place]) == pytest.approx(float(expected), abs=1e-5)


def test_padding_changes_no_logprob_score_value_or_gradient(
    policy: PreTrainedModel, chat: Chat, rows: list[Encoded], tmp_path: Path
) -> None:
    save_model(policy, chat, tmp_path)
    reward, _ = new_reward_model(tmp_path, seed=1)
    longer = Encoded(rows[0].ids * 4, rows[0].mask[:1] * len(rows[0].ids) * 4)
    alone, padded = collate(rows, pad_id=chat.pad_id), collate([*rows, longer], pad_id=chat.pad_id)
    width = alone.input_ids.shape[1]
    for forward, model in ((response_logprobs, policy), (token_values, reward)):
        torch.testing.assert_close(
            forward(model, alone), forward(model, padded)[: len(rows), :width], atol=2e-6, rtol=1e-5
        )
    torch.testing.assert_close(sequence_scores(reward, alone), sequence_scores(reward, padded)[:-1], atol=2e-6, rtol=0)
    gradients = []
    for batch in (alone, padded):
        policy.zero_grad()
        response_logprobs(policy, batch).sum().backward()
        gradients.append(
            torch.cat([weight.grad.flatten() for weight in policy.parameters() if weight.grad is not None])
        )
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-5


def test_plain_transformers_gives_the_same_logits_and_scores(
    policy: PreTrainedModel, chat: Chat, rows: list[Encoded], tmp_path: Path
) -> None:
    save_model(policy, chat, tmp_path / "policy")
    reward, reward_chat = new_reward_model(tmp_path / "policy", seed=1)
    save_model(reward, reward_chat, tmp_path / "reward")
    batch = collate(rows, pad_id=chat.pad_id)
    attention = (torch.arange(batch.input_ids.shape[1]) < batch.lengths[:, None]).long()
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    scores = plain(input_ids=batch.input_ids, attention_mask=attention).logits.squeeze(-1)
    torch.testing.assert_close(scores, sequence_scores(load_reward_model(tmp_path / "reward")[0], batch))
    causal = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    torch.testing.assert_close(
        causal(batch.input_ids).logits, load_policy(tmp_path / "policy")[0](batch.input_ids).logits
    )


def test_sampled_logprobs_equal_teacher_forced_ones_whatever_the_batch(policy: PreTrainedModel, chat: Chat) -> None:
    prompts = [chat.encode_prompt((Message("user", text),)) for text in [*TEXTS, "museum", "the hall"] * 6]
    stops = [*chat.stop_ids, *range(100, 130)]  # many stop tokens, so that rows end early and the batch is compacted
    draws = [
        sample(policy, prompts, max_new_tokens=24, temperature=0.7, stop_ids=stops, pad_id=0, seed=3, batch_size=size)
        for size in (24, 5, 1)
    ]
    assert [row.ids for row in draws[0]] == [row.ids for row in draws[1]] == [row.ids for row in draws[2]]
    assert len({len(row.ids) for row in draws[0]}) > 3
    rows = [
        Encoded(prompt + row.ids, [False] * len(prompt) + [True] * len(row.ids))
        for prompt, row in zip(prompts, draws[0], strict=True)
    ]
    batch = collate(rows, pad_id=chat.pad_id)
    found = response_logprobs(policy, batch, temperature=0.7)[batch.response_mask].detach()
    drawn = torch.tensor([value for row in draws[0] for value in row.logprobs])
    assert float((found - drawn).abs().max()) < 1e-5


def test_sampling_follows_the_distribution(policy: PreTrainedModel, chat: Chat) -> None:
    prompt = chat.encode_prompt((Message("user", "the"),))
    expected = policy(input_ids=torch.tensor([prompt])).logits[0, -1].detach().softmax(-1)
    draws = sample(policy, [prompt] * 4000, max_new_tokens=1, temperature=1.0, stop_ids=chat.stop_ids, pad_id=0, seed=0)
    counts = torch.bincount(torch.tensor([row.ids[0] for row in draws]), minlength=len(expected))
    chi_square = float(((counts - 4000 * expected) ** 2 / (4000 * expected)).sum())
    degrees = len(expected) - 1
    assert abs(chi_square - degrees) < 4 * (2 * degrees) ** 0.5


def test_micro_batches_hold_the_budget_and_every_row_once() -> None:
    lengths = [5, 9, 3, 3, 8, 30, 2, 2]
    batches = micro_batches(lengths, token_budget=20, runs=[[0, 1], [2, 3], [4, 5], [6, 7]], keep_runs=True)
    assert sorted(row for batch in batches for row in batch) == list(range(8))
    for batch in batches:
        assert len(batch) == 2 or len(batch) * max(lengths[row] for row in batch) <= 20
        assert batch[0::2] == [row - 1 for row in batch[1::2]]


def test_a_directory_with_pickled_weights_is_refused(policy: PreTrainedModel, chat: Chat, tmp_path: Path) -> None:
    save_model(policy, chat, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"pickled.*save_pretrained"):
        load_policy(tmp_path)


def test_a_directory_without_tokenizer_is_refused(policy: PreTrainedModel, chat: Chat, tmp_path: Path) -> None:
    save_model(policy, chat, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match=r"has no tokenizer; copy tokenizer.json"):
        load_policy(tmp_path)

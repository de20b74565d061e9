"""Tokenizers as they come: with and without template, padding, beginning-of-sequence and end-of-turn tokens."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

from prefloop.models.chat import Chat, load_chat
from prefloop.models.load import load_policy, load_reward_model, new_reward_model
from prefloop.types import InputError, Message

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
EOS, BOS, RESERVED = "<eos>", "<bos>", "<|reserved_3|>"


def byte_tokenizer(*special, bos=False, **named):
    """One token a byte, after the special ones."""
    core = Tokenizer(models.BPE({token: place for place, token in enumerate([*special, *ALPHABET])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(special))
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, core.token_to_id(BOS))]
        )
        named["bos_token"] = BOS
    return PreTrainedTokenizerFast(tokenizer_object=core, **named)


def turns(*texts):
    return tuple(Message("assistant" if place % 2 else "user", text) for place, text in enumerate(texts))


def test_without_a_template_the_plain_one_serves():
    chat = Chat(byte_tokenizer(EOS, "<pad>", eos_token=EOS, pad_token="<pad>"))
    assert chat.decode_with_special(chat.encode_prompt(turns("hi"))) == "\n\nHuman: hi\n\nAssistant:"
    encoded = chat.encode(turns("hi", "yo", "so", "no"), num_context=0)
    assert chat.decode_with_special(encoded.ids) == (
        f"\n\nHuman: hi\n\nAssistant: yo{EOS}\n\nHuman: so\n\nAssistant: no{EOS}"
    )
    answers = [token for token, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    assert chat.decode_with_special(answers) == f" yo{EOS} no{EOS}"
    assert chat.decode(answers[:4]) == "yo"
    with_system = (Message("system", "be brief"), *turns("hi"))
    assert chat.decode_with_special(chat.encode_prompt(with_system)).startswith("be brief\n\nHuman: hi")


def test_a_beginning_of_sequence_token_comes_once_and_only_where_the_tokenizer_adds_it():
    with_bos = Chat(byte_tokenizer(BOS, EOS, "<pad>", bos=True, eos_token=EOS, pad_token="<pad>"))
    ids = with_bos.encode_response(turns("hi"), "yo").ids
    assert ids[0] == with_bos.tokenizer.bos_token_id and ids.count(with_bos.tokenizer.bos_token_id) == 1
    plain = byte_tokenizer(BOS, EOS, "<pad>", eos_token=EOS, pad_token="<pad>", bos_token=BOS)
    assert plain.bos_token_id not in Chat(plain).encode_response(turns("hi"), "yo").ids


@pytest.mark.parametrize("pad", [None, EOS])
def test_padding_never_uses_the_end_token(pad, capsys):
    chat = Chat(byte_tokenizer(EOS, RESERVED, eos_token=EOS, pad_token=pad))
    assert chat.tokenizer.pad_token == RESERVED
    assert chat.pad_id not in chat.stop_ids and chat.tokenizer.eos_token_id in chat.stop_ids
    assert f"the reserved token {RESERVED} is used for padding" in capsys.readouterr().err
    without = Chat(byte_tokenizer(EOS, eos_token=EOS, pad_token=pad))
    assert without.pad_id == len(without.tokenizer) - 1 == 257
    assert "a new token <|pad|> is used for padding" in capsys.readouterr().err


def test_stop_tokens_come_from_template_tokenizer_and_generation_config(tmp_path):
    tokenizer = byte_tokenizer(EOS, "<pad>", "<turn>", "<other>", eos_token=EOS, pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>", "<other>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<turn>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    assert load_chat(tmp_path).stop_ids == {0, 2}
    for listed in (3, [0, 3]):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
        assert load_chat(tmp_path).stop_ids == {0, 2, 3}
    encoded = load_chat(tmp_path).encode_response(turns("hi"), "yo")
    assert encoded.ids[-1] == 2 and encoded.mask[-1]


def test_a_tokenizer_without_any_end_token_is_refused():
    with pytest.raises(InputError, match="has no end-of-sequence token; set eos_token in its config"):
        Chat(byte_tokenizer("<pad>", pad_token="<pad>"))


def test_a_template_that_rewrites_earlier_turns_is_refused_for_dialogues_only():
    tokenizer = byte_tokenizer(EOS, "<pad>", eos_token=EOS, pad_token="<pad>")
    # As templates do that drop the reasoning of all but the last answer.
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'] | upper }}"
        "{% else %}{{ m['content'] }}{% endif %}{% if m['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
    )
    chat = Chat(tokenizer)
    assert chat.decode_with_special(chat.encode(turns("hi", "yo"), num_context=1).ids) == f"hiyo{EOS}"
    with pytest.raises(InputError, match="rewrites earlier turns of a dialogue when turn 4 is added"):
        chat.encode(turns("hi", "yo", "so", "no"), num_context=0)


REFUSING = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{{ m['role'] }}: {{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""As templates of the Gemma family do."""


def test_a_template_that_refuses_a_dialogue_is_an_error_of_the_row():
    chat = Chat(byte_tokenizer(EOS, "<pad>", eos_token=EOS, pad_token="<pad>", chat_template=REFUSING))
    assert chat.encode_prompt(turns("hi"))
    with pytest.raises(InputError, match="chat template fails on this dialogue: System role not supported; correct"):
        chat.encode_prompt((Message("system", "be brief"), *turns("hi")))


def test_a_text_too_long_to_tokenise_is_refused_at_once():
    chat = Chat(byte_tokenizer(EOS, "<pad>", eos_token=EOS, pad_token="<pad>"))
    with pytest.raises(InputError, match=r"a text of 100,000,0\d\d characters; at most 4,000,000 can be read at once"):
        chat.encode_prompt(turns("word " * 20_000_000))


def test_only_equal_tokenizers_are_the_same():
    def make():
        return byte_tokenizer(EOS, "<pad>", eos_token=EOS, pad_token="<pad>")

    other_template = make()
    other_template.chat_template = "{% for m in messages %}{{ m['content'] }}<eos>{% endfor %}"
    assert Chat(make()).same_tokens(Chat(make()))
    assert not Chat(make()).same_tokens(Chat(other_template))
    assert not Chat(make()).same_tokens(Chat(byte_tokenizer(EOS, "<pad>", "<x>", eos_token=EOS, pad_token="<pad>")))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A GPT-2 with learned positions and dropout, whose tokenizer has neither template nor padding."""
    directory = tmp_path_factory.mktemp("gpt2")
    tokenizer = byte_tokenizer(EOS, eos_token=EOS)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=128, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(shape).save_pretrained(directory)
    return directory


@pytest.fixture
def spoiled(gpt2, tmp_path):
    """A copy of it, to be spoiled."""
    return shutil.copytree(gpt2, tmp_path / "spoiled")


def test_a_broken_template_is_named_by_its_directory(spoiled, prefloop, data, tmp_path):
    (spoiled / "chat_template.jinja").write_text("{% for m in %}")
    outcome = prefloop("sample", spoiled, data / "prompts.jsonl", "--out", tmp_path / "x.jsonl")
    assert outcome.problem.startswith(f"{spoiled}: model: the model's chat template fails on this dialogue: ")


def test_rows_that_a_template_refuses_are_named(spoiled, prefloop, tmp_path):
    (spoiled / "chat_template.jinja").write_text(REFUSING)
    system = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    rows = [{"prompt": "hi", "completion": "yo"}, {"prompt": system, "completion": "yo"}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    place = f"{path}:2: the model's chat template fails on this dialogue: System role not supported; correct"
    assert prefloop("train sft", "--model", spoiled, "--data", path, "--out", tmp_path / "r").problem.startswith(place)
    sampled = prefloop("sample", spoiled, path, "--out", tmp_path / "x.jsonl", "--max-new-tokens", 4)
    assert sampled.problem.startswith(place)


def test_code_in_a_model_directory_is_never_run_nor_asked_about(spoiled, monkeypatch):
    (spoiled / "evil.py").write_text("raise SystemExit('this ran')\n")
    named = {"AutoTokenizer": ["evil.Tokenizer", None], "AutoConfig": "evil.Config"}
    for file, more in (("tokenizer_config.json", {"tokenizer_class": "Evil"}), ("config.json", {"model_type": "evil"})):
        config = json.loads((spoiled / file).read_text()) | more | {"auto_map": named}
        (spoiled / file).write_text(json.dumps(config))

    asked = []
    monkeypatch.setattr("builtins.input", lambda question: asked.append(question) or "y")
    with pytest.raises(InputError, match="cannot load this tokenizer") as caught:
        load_chat(spoiled)
    assert "this ran" not in str(caught.value)
    assert asked == []


def test_the_embedding_grows_for_a_new_padding_token(gpt2):
    model, chat = load_policy(gpt2)
    assert chat.pad_id == 257 and model.get_input_embeddings().num_embeddings == 258
    assert model.config.pad_token_id == 257
    assert not model.training or all(
        module.p == 0 for module in model.modules() if isinstance(module, torch.nn.Dropout)
    )


def test_a_gpt2_goes_through_all_stages(gpt2, prefloop, data, tmp_path):
    """Learned positions, tied weights that grew by a token, the plain template."""
    common = ("--eval-fraction", 0, "--batch-size", 60)
    sft = prefloop(
        *("train sft", "--model", gpt2, "--data", data / "demonstrations.jsonl", "--out", tmp_path / "sft", *common),
        *("--optimizer.lr", 2e-2),
    )
    assert sft.code == 0, sft.said
    rows = sft.metrics()
    assert rows[-1]["sft/loss"] < rows[0]["sft/loss"] - 1
    reward = prefloop(
        *("train reward", "--model", sft.run, "--data", data / "pairs.jsonl", "--out", tmp_path / "reward", *common),
        *("--optimizer.lr", 3e-3),
    )
    assert reward.code == 0, reward.said
    policy = prefloop(
        *("train policy", "--model", sft.run, "--reward", reward.run, "--prompts", data / "prompts.jsonl"),
        *("--num-steps", 2, "--max-new-tokens", 20, "--out", tmp_path / "policy"),
    )
    assert policy.code == 0, policy.said
    first = policy.metrics()[0]
    assert first["policy/sampler_gap"] < 1e-5 and first["kl/full"] == pytest.approx(0, abs=1e-4)
    plain = GPT2LMHeadModel.from_pretrained(policy.model)
    model, chat = load_policy(policy.model)
    ids = torch.tensor([chat.encode_prompt(turns("hi"))])
    torch.testing.assert_close(plain(ids).logits, model(ids).logits)


def test_a_classifier_from_elsewhere_scores_as_it_comes(gpt2, tmp_path):
    chat = load_policy(gpt2)[1]
    chat.tokenizer.save_pretrained(tmp_path)
    shape = GPT2Config(vocab_size=258, n_embd=32, n_layer=1, n_head=2, num_labels=1, pad_token_id=257)
    GPT2ForSequenceClassification(shape).save_pretrained(tmp_path)
    model = load_reward_model(tmp_path)[0]
    assert (model.config.reward_mean, model.config.reward_std) == (0.0, 1.0)


def test_a_fresh_head_has_the_published_spread_and_the_seed_decides(gpt2):
    first, again, other = (new_reward_model(gpt2, seed=seed)[0].score.weight.detach() for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(torch.cat([first, other]).std()) == pytest.approx((32 + 1) ** -0.5, rel=0.3)

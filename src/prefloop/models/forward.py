"""The forward passes of training: response logprobs, scores, values. Only `models/` and `rollout/` run a model.

Rows are right-padded, so causal attention alone keeps padding out of every real position, and positions count from 0.
The language-model head runs on response positions only.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefloop.functional.kl import full_kl
from prefloop.functional.logprobs import entropy, scatter_response, token_logprobs
from prefloop.models.batching import TokenBatch
from prefloop.models.decoder import hidden_at, unsupported
from prefloop.models.load import score_head
from prefloop.models.lora import adapters_off

PLAIN_HEAD = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "olmo2", "phi3", "smollm3"})
"""Families whose logits are the output embedding applied to the last hidden state, nothing else."""


def _hidden_at(model: PreTrainedModel, batch: TokenBatch, where: Tensor) -> Tensor:
    """[M, d] last hidden states at the M True positions of `where` [B, T], all of them real tokens."""
    if unsupported(model) is None:
        return hidden_at(model, batch.input_ids, batch.lengths, where)
    hidden: Tensor = model.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return hidden[where]


def _predicts(response_mask: Tensor) -> Tensor:
    """[B, T] bool: position t predicts token t+1, so it counts where token t+1 is a response token."""
    assert not bool(response_mask[:, 0].any()), "the first token has nothing before it to be predicted from"
    return torch.cat([response_mask[:, 1:], torch.zeros_like(response_mask[:, :1])], dim=1)


def response_logits(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[N, V] logits of the N response tokens, in row-major order of the mask."""
    predicts = _predicts(batch.response_mask)
    if model.config.model_type in PLAIN_HEAD:
        head = model.get_output_embeddings()
        logits: Tensor = head(_hidden_at(model, batch, predicts))
        return logits
    full: Tensor = model(input_ids=batch.input_ids, use_cache=False).logits
    return full[predicts]


def response_logprobs(model: PreTrainedModel, batch: TokenBatch, *, temperature: float = 1.0) -> Tensor:
    """[B, T] log p of each response token given what stands before it, 0 elsewhere. Differentiable."""
    logprobs = token_logprobs(
        response_logits(model, batch), batch.input_ids[batch.response_mask], temperature=temperature
    )
    return scatter_response(logprobs, batch.response_mask)


def logprobs_and_values(
    model: PreTrainedModel, head: nn.Linear, batch: TokenBatch, *, temperature: float, trains_trunk: bool = True
) -> tuple[Tensor, Tensor]:
    """`response_logprobs`, and the values that a head on the same trunk gives before each response token, [B, T] each.

    Both come from one pass. The values are in units of normalised scores; without `trains_trunk` their gradient stops
    at the head.
    """
    predicts = _predicts(batch.response_mask)
    if model.config.model_type in PLAIN_HEAD:
        hidden = _hidden_at(model, batch, predicts)
        logits = model.get_output_embeddings()(hidden)
    else:
        output = model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True)
        hidden, logits = output.hidden_states[-1][predicts], output.logits[predicts]
    logprobs = token_logprobs(logits, batch.input_ids[batch.response_mask], temperature=temperature)
    values = head(hidden if trains_trunk else hidden.detach()).squeeze(-1).float()
    return scatter_response(logprobs, batch.response_mask), scatter_response(values, batch.response_mask)


@torch.no_grad()
def compare_to_reference(
    model: PreTrainedModel, reference: PreTrainedModel, batch: TokenBatch, *, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy logprobs, reference logprobs, exact KL and entropy of each response position, all [B, T].

    Where `reference` is the model itself, the reference is what the model is without its adapters.
    """
    logits = response_logits(model, batch)
    with adapters_off(model) if reference is model else contextlib.nullcontext():
        ref_logits = response_logits(reference, batch)
    ids = batch.input_ids[batch.response_mask]
    columns = (
        token_logprobs(logits, ids, temperature=temperature),
        token_logprobs(ref_logits, ids, temperature=temperature),
        full_kl(logits, ref_logits, temperature=temperature),
        entropy(logits, temperature=temperature),
    )
    logprobs, ref_logprobs, kl, entropies = (scatter_response(column, batch.response_mask) for column in columns)
    return logprobs, ref_logprobs, kl, entropies


def sequence_scores(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B] raw score: the scalar head at the last token of each row. Differentiable."""
    return head_scores(model, batch).squeeze(-1)


def head_scores(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, K] raw scores of a model with K heads, as `sequence_scores`."""
    columns = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
    last = _hidden_at(model, batch, columns == batch.lengths[:, None] - 1)
    scores: Tensor = score_head(model)(last).float()
    return scores


def token_values(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, T] value before each response token, 0 elsewhere, in units of normalised scores. Differentiable."""
    hidden = _hidden_at(model, batch, _predicts(batch.response_mask))
    raw = score_head(model)(hidden).squeeze(-1).float()
    return scatter_response((raw - model.config.reward_mean) / model.config.reward_std, batch.response_mask)

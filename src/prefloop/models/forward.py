"""The forward passes of training: response logprobs, scores, values. Only `models/` and `rollout/` run a model.

Rows are right-padded, so causal attention alone keeps padding out of every real position, and positions count from 0.
The language-model head runs on response positions only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from prefloop.functional.kl import kl_and_entropy
from prefloop.functional.logprobs import log_softmax, scatter_response, token_logprobs
from prefloop.models.batching import TokenBatch
from prefloop.models.decoder import hidden_at, unsupported
from prefloop.models.head import BLOCK, blocks, chosen_logprobs
from prefloop.models.load import score_head
from prefloop.models.lora import adapters_off, linear_of
from prefloop.models.precision import full_precision

PLAIN_HEAD = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "olmo2", "phi3", "smollm3"})
"""Families whose logits are the output embedding applied to the last hidden state, nothing else."""


def shares_prompts(model: PreTrainedModel) -> bool:
    """Whether rows of one batch that begin with the same prompt cost it once."""
    return unsupported(model) is None


def _hidden_at(model: PreTrainedModel, batch: TokenBatch, where: Tensor) -> Tensor:
    """[M, d] last hidden states at the M True positions of `where` [B, T], all of them real tokens."""
    if unsupported(model) is None:
        return hidden_at(model, batch, where)
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
        logits: Tensor = model.get_output_embeddings()(_hidden_at(model, batch, predicts))
        return logits
    full: Tensor = model(input_ids=batch.input_ids, use_cache=False).logits
    return full[predicts]


def _chosen(model: PreTrainedModel, hidden: Tensor, batch: TokenBatch, temperature: float) -> Tensor:
    """[N] log p of the response tokens from the hidden states before them."""
    head = linear_of(model.get_output_embeddings())
    ids = batch.input_ids[batch.response_mask]
    return chosen_logprobs(hidden, head.weight, head.bias, ids, temperature=temperature)


def response_logprobs(model: PreTrainedModel, batch: TokenBatch, *, temperature: float = 1.0) -> Tensor:
    """[B, T] log p of each response token given what stands before it, 0 elsewhere. Differentiable."""
    if model.config.model_type in PLAIN_HEAD:
        logprobs = _chosen(model, _hidden_at(model, batch, _predicts(batch.response_mask)), batch, temperature)
    else:
        ids = batch.input_ids[batch.response_mask]
        logprobs = token_logprobs(response_logits(model, batch), ids, temperature=temperature)
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
        logprobs = _chosen(model, hidden, batch, temperature)
    else:
        output = model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True)
        hidden = output.hidden_states[-1][predicts]
        ids = batch.input_ids[batch.response_mask]
        logprobs = token_logprobs(output.logits[predicts], ids, temperature=temperature)
    values = _in_full(head, hidden if trains_trunk else hidden.detach()).squeeze(-1)
    return scatter_response(logprobs, batch.response_mask), scatter_response(values, batch.response_mask)


@torch.no_grad()
def compare_to_reference(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    batch: TokenBatch,
    *,
    temperature: float,
    hidden: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Policy logprobs, reference logprobs, exact KL and entropy of each response position, all [B, T].

    Where `reference` is the model itself, the reference is what the model is without its adapters. `hidden` [N, d]: the
    policy's last hidden states before the response tokens, if they are known (a PLAIN_HEAD family's only).
    """
    predicts, mask = _predicts(batch.response_mask), batch.response_mask
    ids = batch.input_ids[mask]
    logits = _logits_in_blocks(model, batch, predicts, hidden)
    with adapters_off(model) if reference is model else contextlib.nullcontext():
        ref_logits = _logits_in_blocks(reference, batch, predicts, None)
    parts: list[tuple[Tensor, ...]] = []
    for part in blocks(len(ids), BLOCK):
        log_p = log_softmax(logits(part), temperature=temperature)
        log_q = log_softmax(ref_logits(part), temperature=temperature)
        chosen = ids[part, None]
        sampled = [each.gather(1, chosen).squeeze(1) for each in (log_p, log_q)]
        parts.append((*sampled, *kl_and_entropy(log_p, log_q)))
    columns = [torch.cat(column) for column in zip(*parts, strict=True)]
    logprobs, ref_logprobs, kl, entropies = (scatter_response(column, mask) for column in columns)
    return logprobs, ref_logprobs, kl, entropies


def _logits_in_blocks(
    model: PreTrainedModel, batch: TokenBatch, predicts: Tensor, hidden: Tensor | None
) -> Callable[[slice], Tensor]:
    """A function that gives the logits of a slice of the True positions of `predicts`."""
    if model.config.model_type not in PLAIN_HEAD:
        return response_logits(model, batch).__getitem__
    states = _hidden_at(model, batch, predicts) if hidden is None else hidden
    head = linear_of(model.get_output_embeddings())
    return lambda part: F.linear(states[part], head.weight, head.bias)


def _in_full(head: nn.Module, hidden: Tensor) -> Tensor:
    """[N, K] what K heads give of hidden states [N, d], in fp32 at least whatever the trunk computes in."""
    with full_precision(hidden.device):
        scores: Tensor = head(hidden.to(next(head.parameters()).dtype))
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def sequence_scores(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B] raw score: the scalar head at the last token of each row. Differentiable."""
    return head_scores(model, batch).squeeze(-1)


def head_scores(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, K] raw scores of a model with K heads, as `sequence_scores`."""
    columns = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
    last = _hidden_at(model, batch, columns == batch.lengths[:, None] - 1)
    return _in_full(score_head(model), last)


def token_values(model: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, T] value before each response token, 0 elsewhere, in units of normalised scores. Differentiable."""
    hidden = _hidden_at(model, batch, _predicts(batch.response_mask))
    raw = _in_full(score_head(model), hidden).squeeze(-1)
    return scatter_response((raw - model.config.reward_mean) / model.config.reward_std, batch.response_mask)

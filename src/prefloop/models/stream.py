"""Rows of tokens as one stream without padding, prompts that neighbours share only once, and what attends to what.

Linear layers and norms run on the stream. Attention runs on padded rows cut out of it (`Span`): a row that shares its
prompt with the row before it has queries for its own tokens only, and finds the prompt's keys where they stand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from prefloop.models.precision import full_precision


@dataclass(frozen=True, eq=False)
class Ragged:
    """Attention rows one after the other; the queries of each are the last of its keys."""

    query_starts: Tensor
    """[R + 1] int32."""
    key_starts: Tensor
    """[R + 1] int32."""
    most_queries: int
    most_keys: int
    keys: Tensor | None
    """Where in the stream the keys are; None: they are the queries' own tokens."""

    @classmethod
    def of(cls, counts: Tensor, key_counts: Tensor, keys: Tensor | None) -> Ragged:
        """From the numbers of queries and keys of each row, [R]."""
        starts, key_starts = (F.pad(each.cumsum(0), (1, 0)).to(torch.int32) for each in (counts, key_counts))
        return cls(starts, key_starts, int(counts.max()), int(key_counts.max()), keys)


@dataclass(frozen=True, eq=False)
class Span:
    """Padded attention rows over a stream: R rows of at most Q queries, each with at most K keys."""

    size: tuple[int, int]
    """R, Q."""
    filled: Tensor
    """[N] which of the R x Q places the N queries of the span take, in order."""
    keys: Tensor | None
    """[R x K] where in the stream the keys are (any place for padding); None: the queries' own tokens, causally."""
    unseen: Tensor | None
    """[R, 1, Q, K] bool: which keys a query does not see; None with `keys` None."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of the N queries [N, heads, width] to keys and values [*, kv_heads, width]: [N, heads x width].

        Without `keys`, k and v are those of the same tokens; else of the whole stream.
        """
        dtype = q.dtype
        if q.device.type == "cuda" and dtype != torch.float32 and self.ragged is not None:
            return self.attend_ragged(q, k, v, self.ragged)
        if q.device.type == "cpu":
            # The CPU's fused attention takes three times as long in bf16 as in fp32.
            q, k, v = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k, v))
        rows, bias = self._rows, None
        if self.keys is not None and self.unseen is not None:
            k, v = (x.index_select(0, self.keys).view(self.size[0], -1, *x.shape[1:]) for x in (k, v))
            bias = self.bias.to(q.dtype)
        else:
            k, v = rows(k), rows(v)
        with full_precision(q.device):
            mixed = F.scaled_dot_product_attention(
                rows(q).transpose(1, 2),
                k.transpose(1, 2),
                v.transpose(1, 2),
                attn_mask=bias,
                is_causal=bias is None,
                enable_gqa=q.shape[1] != k.shape[2],
            )
        flat = mixed.transpose(1, 2).flatten(0, 1).flatten(1).to(dtype)
        return flat if len(self.filled) == len(flat) else flat.index_select(0, self.filled)

    @cached_property
    def bias(self) -> Tensor:
        """[R, 1, Q, K] what is added to the attention scores: 0, or -infinity at keys that a query does not see."""
        assert self.unseen is not None
        return torch.zeros(self.unseen.shape, device=self.unseen.device).masked_fill_(self.unseen, -torch.inf)

    @cached_property
    def ragged(self) -> Ragged | None:
        """The rows without padding, or None where the queries of a row are not the last of the keys that it sees."""
        num_rows, most = self.size
        counts = torch.bincount(self.filled // most, minlength=num_rows)
        if self.keys is None or self.unseen is None:
            return Ragged.of(counts, counts, None)
        order = torch.arange(most, device=counts.device)
        seen = (~self.unseen).sum(-1).squeeze(1)
        key_counts = seen.gather(1, (counts - 1).clamp(min=0)[:, None]).squeeze(1)
        aligned = (seen == (key_counts - counts + 1)[:, None] + order) | (order >= counts[:, None])
        if not bool(aligned.all()):
            return None
        places = self.keys.view(num_rows, -1)
        columns = torch.arange(places.shape[1], device=counts.device)
        return Ragged.of(counts, key_counts, places[columns < key_counts[:, None]])

    def attend_ragged(self, q: Tensor, k: Tensor, v: Tensor, ragged: Ragged) -> Tensor:
        """`attend` without padding, by torch's variable-length flash attention (CUDA, half precision)."""
        if ragged.keys is not None:
            k, v = k.index_select(0, ragged.keys), v.index_select(0, ragged.keys)
        mixed = varlen_attn(
            *(q, k, v),
            *(ragged.query_starts, ragged.key_starts),
            *(ragged.most_queries, ragged.most_keys),
            window_size=(-1, 0),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        assert isinstance(mixed, Tensor)
        return mixed.flatten(1)

    def _rows(self, x: Tensor) -> Tensor:
        """[N, heads, width] as [R, Q, heads, width], 0 at padding."""
        if len(x) < self.size[0] * self.size[1]:
            x = x.new_zeros(self.size[0] * self.size[1], *x.shape[1:]).index_copy(0, self.filled, x)
        return x.view(*self.size, *x.shape[1:])


@dataclass(frozen=True, eq=False)
class Stream:
    """The tokens of B rows [B, T], and the spans in which they attend to one another."""

    ids: Tensor
    """[N] int64."""
    positions: Tensor
    """[N] int64: the place of each token in its row."""
    places: Tensor
    """[B, T] int64: where in the stream each token of the rows is; 0 at padding."""
    spans: tuple[tuple[int, Span], ...]
    """Number of tokens and span of each part of the stream, in order."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """[N, heads x width] attention output of every token of the stream."""
        parts, start = [], 0
        for number, span in self.spans:
            own = slice(start, start + number)
            parts.append(span.attend(q[own], *((k, v) if span.keys is not None else (k[own], v[own]))))
            start += number
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def only(self, where: Tensor, lengths: Tensor) -> tuple[Tensor, Span]:
        """For the M True positions of `where` [B, T]: their places in the stream [M], and the span of these queries."""
        counts = where.sum(1)
        width = int(counts.max())
        slots = (where.cumsum(1) - 1 + torch.arange(len(where), device=where.device)[:, None] * width)[where]
        columns = torch.arange(where.shape[1], device=where.device)
        position = torch.zeros(len(where) * width, dtype=torch.int64, device=where.device)
        position[slots] = columns.expand_as(where)[where]
        beyond = columns > position.view(len(where), 1, width, 1)
        # A padded query sees its row's first token, so that no softmax is empty.
        unseen = beyond | (columns >= lengths[:, None])[:, None, None, :]
        return self.places[where], Span((len(where), width), slots, self.places.flatten(), unseen)


def shared_prefixes(input_ids: Tensor, prompt_lengths: Tensor) -> Tensor:
    """[B] bool: whether a row begins with the same prompt as the row before it.

    `input_ids` [B, T], `prompt_lengths` [B]: how many tokens of each row are its prompt; 0: it has none to share.
    """
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    same = (input_ids[1:] == input_ids[:-1]) | (columns >= prompt_lengths[1:, None])
    shares = (prompt_lengths[1:] == prompt_lengths[:-1]) & (prompt_lengths[1:] > 0) & same.all(1)
    return F.pad(shares, (1, 0))


def stream_of(input_ids: Tensor, lengths: Tensor, prompt_lengths: Tensor) -> Stream:
    """The stream of right-padded rows `input_ids` [B, T] with `lengths` [B].

    Neighbours that begin with the same prompt hold it once: first all prompts, then what follows them.
    """
    size, width = input_ids.shape
    columns = torch.arange(width, device=input_ids.device)
    real = columns < lengths[:, None]
    shares = shared_prefixes(input_ids, prompt_lengths)
    if not bool(shares.any()):
        places = (real.flatten().cumsum(0) - 1).view(size, width).masked_fill(~real, 0)
        span = _own(real)
        return Stream(input_ids[real], columns.expand(size, width)[real], places, ((int(real.sum()), span),))
    leaders = (~shares).nonzero().squeeze(-1)
    group = (~shares).cumsum(0) - 1
    longest = int(prompt_lengths.max())
    in_prompt = columns < prompt_lengths[:, None]
    prompts, rest = in_prompt[leaders, :longest], real & ~in_prompt
    num_prompt_tokens = int(prompts.sum())
    prompt_places = (prompts.flatten().cumsum(0) - 1).view(prompts.shape).masked_fill(~prompts, 0)
    places = (rest.flatten().cumsum(0) - 1 + num_prompt_tokens).view(size, width).masked_fill(~rest, 0)
    places[:, :longest] += prompt_places[group]
    counts = rest.sum(1)
    number, most = int(counts.sum()), int(counts.max())
    slots = (rest.cumsum(1) - 1 + torch.arange(size, device=columns.device)[:, None] * most)[rest]
    queries = prompt_lengths[:, None] + torch.arange(most, device=columns.device)
    beyond = columns > queries[:, None, :, None]
    unseen = beyond | (~real)[:, None, None, :]
    after = Span((size, most), slots, places.flatten(), unseen)
    grid = columns.expand(size, width)
    return Stream(
        torch.cat([input_ids[leaders, :longest][prompts], input_ids[rest]]),
        torch.cat([grid[leaders, :longest][prompts], grid[rest]]),
        places,
        ((num_prompt_tokens, _own(prompts)), (number, after)),
    )


def _own(real: Tensor) -> Span:
    """Rows that attend to themselves, causally."""
    return Span((real.shape[0], real.shape[1]), real.flatten().nonzero().squeeze(-1), None, None)

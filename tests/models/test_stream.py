"""Streams of tokens: what is shared, and rows without padding against padded ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from prefloop.models import stream as streams
from prefloop.models.stream import shared_prefixes, stream_of

PROMPTS = [[5, 9, 3], [5, 9, 3], [7], [7], [5, 9, 3], [8, 8, 8, 8]]
ANSWERS = [[1, 2], [4], [6, 6, 6], [2], [3, 3], [1]]


def rows():
    longest = max(len(p) + len(a) for p, a in zip(PROMPTS, ANSWERS, strict=True))
    ids = torch.tensor([(p + a + [0] * longest)[:longest] for p, a in zip(PROMPTS, ANSWERS, strict=True)])
    lengths = torch.tensor([len(p) + len(a) for p, a in zip(PROMPTS, ANSWERS, strict=True)])
    return ids, lengths, torch.tensor([len(p) for p in PROMPTS])


def test_only_neighbours_with_the_whole_prompt_in_common_share_it():
    ids, _, prompt_lengths = rows()
    assert shared_prefixes(ids, prompt_lengths).tolist() == [False, True, False, True, False, False]
    assert not shared_prefixes(ids, torch.zeros_like(prompt_lengths)).any()
    # The same tokens as far as the shorter prompt goes are not the same prompt.
    assert not shared_prefixes(torch.tensor([[5, 9, 1], [5, 9, 1]]), torch.tensor([1, 2])).any()


def test_every_token_is_in_the_stream_once_and_its_place_is_known():
    ids, lengths, prompt_lengths = rows()
    stream = stream_of(ids, lengths, prompt_lengths)
    assert stream.ids.tolist() == [5, 9, 3, 7, 5, 9, 3, 8, 8, 8, 8] + [token for answer in ANSWERS for token in answer]
    real = torch.arange(ids.shape[1]) < lengths[:, None]
    assert torch.equal(stream.ids[stream.places][real], ids[real])
    assert torch.equal(stream.positions[stream.places][real], torch.arange(ids.shape[1]).expand_as(ids)[real])


def flash(q, k, v, query_starts, key_starts, most_queries, most_keys, *, window_size, enable_gqa):
    """What torch.nn.attention.varlen does, row by row: causal, the queries being the last of the keys."""
    assert window_size == (-1, 0) and query_starts.dtype == key_starts.dtype == torch.int32
    assert most_queries == query_starts.diff().max() and most_keys == key_starts.diff().max()
    parts = []
    for row in range(len(query_starts) - 1):
        own = slice(int(query_starts[row]), int(query_starts[row + 1]))
        keys = slice(int(key_starts[row]), int(key_starts[row + 1]))
        number, total = own.stop - own.start, keys.stop - keys.start
        mask = torch.ones(number, total, dtype=torch.bool).tril(total - number)
        q_row, k_row, v_row = (x.transpose(0, 1) for x in (q[own], k[keys], v[keys]))
        parts.append(F.scaled_dot_product_attention(q_row, k_row, v_row, attn_mask=mask, enable_gqa=enable_gqa))
    return torch.cat([part.transpose(0, 1) for part in parts])


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("heads", [2, 4])
def test_rows_without_padding_attend_as_padded_ones(monkeypatch, shares, heads):
    """The way of a GPU with a stand-in for its kernel."""
    monkeypatch.setattr(streams, "varlen_attn", flash)
    ids, lengths, prompt_lengths = rows()
    stream = stream_of(ids, lengths, prompt_lengths if shares else torch.zeros_like(prompt_lengths))
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(len(stream.ids), heads, 8, generator=generator)
    k, v = (torch.randn(len(stream.ids), 2, 8, generator=generator) for _ in range(2))
    start = 0
    for number, span in stream.spans:
        own = slice(start, start + number)
        start += number
        kv = (k[own], v[own]) if span.keys is None else (k, v)
        assert span.ragged is not None
        torch.testing.assert_close(span.attend_ragged(q[own], *kv, span.ragged), span.attend(q[own], *kv))
    columns = torch.arange(ids.shape[1])
    predicts = (columns >= prompt_lengths[:, None] - 1) & (columns < lengths[:, None] - 1)
    for where in (predicts, columns == lengths[:, None] - 1):
        places, span = stream.only(where, lengths)
        assert span.ragged is not None
        found = span.attend_ragged(q[places], k, v, span.ragged)
        torch.testing.assert_close(found, span.attend(q[places], k, v))


def test_queries_with_gaps_are_not_the_last_of_their_keys():
    """As with a loss on several turns."""
    ids, lengths, prompt_lengths = rows()
    where = torch.arange(ids.shape[1]) < lengths[:, None]
    where[:, 1] = False
    assert stream_of(ids, lengths, prompt_lengths).only(where, lengths)[1].ragged is None

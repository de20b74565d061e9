"""What each optimisation brings: the plain way and prefloop's, in turn, in one process.

`python -m benchmarks.parts` prints CPU milliseconds of one thread, medians of seven. The shapes are those of the peer
comparison (`testbed.py`): 32 responses of 64 tokens, four to each of eight prompts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from benchmarks.options import table
from benchmarks.testbed import SIZES, VOCAB, model_config
from prefloop.functional.kl import kl_and_entropy
from prefloop.functional.logprobs import log_softmax, token_logprobs
from prefloop.models import head
from prefloop.models.batching import TokenBatch
from prefloop.models.forward import response_logprobs
from prefloop.models.fused import gated, rms_norm, rotate
from prefloop.models.head import chosen_logprobs
from prefloop.models.precision import computing_in
from prefloop.rollout.draw import draw

Part = tuple[Callable[[], object], Callable[[], object]]
ROUNDS = 7


def milliseconds(ways: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Median CPU milliseconds of each way, which take turns."""
    spent: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds + 1):
        for times, way in zip(spent, ways, strict=True):
            started = time.process_time()
            way()
            times.append(1e3 * (time.process_time() - started))
    return [statistics.median(times[1:]) for times in spent]


def _with_gradient(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    grad = torch.randn_like(function(*inputs))
    return lambda: function(*inputs).backward(grad)


def _leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def parts(size: str) -> dict[str, Part]:
    """The plain way and prefloop's of each part of a training pass, and of a decoding step's products."""
    shape, tokens = SIZES[size], 2400
    width = shape.hidden // shape.heads
    x, weight = _leaf(tokens, shape.hidden), _leaf(shape.hidden)
    q, angles = _leaf(tokens, shape.heads, width), torch.randn(tokens, 1, width)
    gate, up = _leaf(tokens, 3 * shape.hidden), _leaf(tokens, 3 * shape.hidden)
    hidden, vocabulary = _leaf(2048, shape.hidden), (0.02 * torch.randn(VOCAB, shape.hidden)).requires_grad_()
    ids = torch.randint(0, VOCAB, (2048,))

    def plain_rotation(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat([-second, first], dim=-1) * angles.sin()

    cos, sin = angles.cos(), angles.sin()
    row, matrix = torch.randn(32, shape.hidden), torch.randn(6 * shape.hidden, shape.hidden)
    turned = matrix.t().contiguous()
    logits, ref_logits, uniforms = torch.randn(256, VOCAB), torch.randn(256, VOCAB), torch.rand(256)

    def plain_comparison() -> object:
        policy, reference = (torch.distributions.Categorical(logits=each) for each in (logits, ref_logits))
        return torch.distributions.kl_divergence(policy, reference), policy.entropy()

    def plain_draw() -> object:
        probabilities = torch.softmax(logits, dim=-1)
        drawn = torch.multinomial(probabilities, 1)
        return drawn, torch.log_softmax(logits, dim=-1).gather(1, drawn)

    return {
        "RMSNorm": (
            _with_gradient(lambda x, weight: F.rms_norm(x, weight.shape, weight, 1e-6), x, weight),
            _with_gradient(lambda x, weight: rms_norm(x, weight, 1e-6), x, weight),
        ),
        "rotary positions": (
            _with_gradient(plain_rotation, q),
            _with_gradient(lambda x: rotate(x, cos, sin), q),
        ),
        "gated MLP, elementwise": (
            _with_gradient(lambda gate, up: F.silu(gate) * up, gate, up),
            _with_gradient(gated, gate, up),
        ),
        "head and log-softmax": (
            _with_gradient(lambda h, w: token_logprobs(F.linear(h, w), ids), hidden, vocabulary),
            _with_gradient(lambda h, w: chosen_logprobs(h, w, None, ids), hidden, vocabulary),
        ),
        "gate and up for 32 rows, [out, in] and [in, out]": (
            lambda: [F.linear(row, matrix) for _ in range(100)],
            lambda: [row @ turned for _ in range(100)],
        ),
        "exact KL and entropy of 256 positions": (
            plain_comparison,
            lambda: kl_and_entropy(log_softmax(logits), log_softmax(ref_logits)),
        ),
        "256 tokens drawn, with logprobs": (plain_draw, lambda: draw(logits, uniforms, temperature=1.0)),
    }


def _grouped(*, group_size: int, prompt: int, response: int, groups: int) -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, VOCAB, (groups, prompt), generator=generator).repeat_interleave(group_size, dim=0)
    responses = torch.randint(3, VOCAB, (groups * group_size, response), generator=generator)
    ids = torch.cat([prompts, responses], dim=1)
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, prompt:] = True
    return TokenBatch(ids, torch.full((len(ids),), prompt + response), mask)


def passes(size: str) -> dict[str, list[Callable[[], object]]]:
    """A training pass (forward, backward) in four ways: transformers, rows apart, prompts shared, the last in bf16."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(model_config(size)).eval()
    shared = _grouped(group_size=4, prompt=40, response=64, groups=8)
    # Neighbours with other prompts share nothing.
    order = torch.arange(32).view(8, 4).t().flatten()
    apart = shared.rows(order)

    def plain() -> None:
        logits = model(input_ids=shared.input_ids, use_cache=False).logits[:, :-1]
        mask = shared.response_mask[:, 1:]
        logprobs = token_logprobs(logits, shared.input_ids[:, 1:])
        logprobs[mask].sum().backward()
        model.zero_grad(set_to_none=True)

    def ours(batch: TokenBatch, precision: str = "fp32") -> Callable[[], None]:
        def run() -> None:
            with computing_in("bf16" if precision == "bf16" else "fp32", torch.device("cpu")):
                loss = response_logprobs(model, batch).sum()
            loss.backward()
            model.zero_grad(set_to_none=True)

        return run

    return {"pass": [plain, ours(apart), ours(shared), ours(shared, "bf16")]}


def measure(size: str, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """CPU milliseconds by part: [plain, prefloop], or for whole passes the four ways."""
    found = {name: milliseconds(ways, rounds) for name, ways in parts(size).items()}
    kept, head.KEPT_BYTES = head.KEPT_BYTES, 0
    found["head, recomputed in the backward pass"] = milliseconds(parts(size)["head and log-softmax"], rounds)
    head.KEPT_BYTES = kept
    return found | {name: milliseconds(ways, rounds) for name, ways in passes(size).items()}


def report(found: dict[str, dict[str, list[float]]]) -> str:
    """Two tables, in Markdown."""
    lines, whole = [], []
    for size, times in found.items():
        for name, values in times.items():
            if name == "pass":
                whole.append([size, *(f"{value:.0f}" for value in values)])
            else:
                plain, ours = values
                lines.append([size, name, f"{plain:.1f}", f"{ours:.1f}", f"{plain / ours:.2f}x"])
    header = ["model", "a training pass: transformers", "prefloop, prompts apart", "prompts shared", "in bf16"]
    return f"{table(['model', 'part', 'plain, ms', 'prefloop, ms', ''], lines)}\n\n{table(header, whole)}"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", allow_abbrev=False)
    parser.add_argument("--size", choices=SIZES, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true", help="JSON instead of the tables")
    flags = parser.parse_args(words)
    torch.set_num_threads(1)
    found = {size: measure(size, flags.rounds) for size in flags.size}
    print(json.dumps(found, indent=1) if flags.json else report(found))


if __name__ == "__main__":
    main()

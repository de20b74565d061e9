"""What a GPU makes of prefloop: one script, one call of under ten minutes, its table last.

`python -m benchmarks.gpu` measures copy bandwidth and GEMM peak first, then against them: decoding a random 0.6B model
of the Qwen3 shape by batch and context (each step as it is, recorded as a CUDA graph, and transformers' `generate`),
responses of geometric lengths end to end, and training passes on packed and on padded rows. `--device cpu --quick`
proves that it runs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from benchmarks.options import table
from prefloop.models.batching import collate
from prefloop.models.chat import Encoded
from prefloop.models.decoder import InferenceWeights
from prefloop.models.forward import response_logprobs
from prefloop.models.precision import computing_in
from prefloop.rollout.engine import sample
from prefloop.rollout.slots import Slots
from prefloop.rollout.steps import STEPS_A_LOOK, Stepper, Written

SHAPES = {
    "0.6B": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "vocab_size": 151_936}
    | {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 512}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
}
ROUNDS = 5


def new_model(shape: str, device: torch.device) -> PreTrainedModel:
    """Random weights of one of SHAPES, fp32."""
    torch.manual_seed(0)
    config = Qwen3Config(**SHAPES[shape], max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=0)
    with device:
        return Qwen3ForCausalLM(config).eval()


def seconds(function: Callable[[], Any], device: torch.device, rounds: int = ROUNDS) -> float:
    """Median seconds of a call after one that is not counted, the device's queue empty before and after each."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    spent = []
    for _ in range(rounds + 1):
        wait()
        started = time.perf_counter()
        function()
        wait()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def copy_bandwidth(device: torch.device, *, num_bytes: int) -> float:
    """Bytes read and written in a second by a large copy."""
    source = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / seconds(lambda: target.copy_(source), device)


def gemm_peak(device: torch.device, *, size: int) -> float:
    """FLOPs in a second of a square bf16 product."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device)


def step_floor(weights: InferenceWeights, *, batch: int, context: int, bandwidth: float) -> float:
    """Seconds in which weights and live cache can be read once."""
    held = [tensor for layer in weights.layers for tensor in vars(layer).values() if tensor is not None]
    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (*held, weights.head))
    shape = weights.shape
    per_token = 2 * len(weights.layers) * shape.num_kv_heads * shape.head_width * weights.head.element_size()
    return (num_bytes + batch * context * per_token) / bandwidth


@torch.no_grad()
def decode(weights: InferenceWeights, *, batch: int, context: int, recorded: bool) -> float:
    """Seconds of one decoding step with `batch` slots that hold about `context` tokens."""
    device, vocab = weights.device, weights.head.shape[1]
    steps = STEPS_A_LOOK * (ROUNDS + 3)
    slots = Slots(weights, num_slots=batch, capacity=context + steps)
    slots.cache.normal_()
    slots.num_active = batch
    slots.requests.copy_(torch.arange(batch))
    slots.lengths.fill_(context - STEPS_A_LOOK)
    slots.running.fill_(True)
    written = Written(torch.rand(batch, steps, device=device), 1.0, [], vocab)
    stepper = Stepper(slots, written, on_gpu=recorded)

    def several() -> None:
        for _ in range(1 if recorded else STEPS_A_LOOK):
            stepper.run()

    return seconds(several, device) / STEPS_A_LOOK


@torch.no_grad()
def generate(model: PreTrainedModel, prompts: Sequence[Sequence[int]], *, new: int, stops: Sequence[int]) -> float:
    """Seconds of transformers' own sampling of `new` tokens to prompts of one length."""
    ids = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
    settings: dict[str, Any] = {
        "max_new_tokens": new,
        "do_sample": True,
        "top_k": 0,
        "eos_token_id": list(stops) or None,
    }
    run: Any = model.generate
    return seconds(lambda: run(ids, attention_mask=torch.ones_like(ids), **settings), model.device, rounds=1)


def training(model: PreTrainedModel, *, groups: int, group_size: int, prompt: int, longest: int) -> tuple[float, int]:
    """Seconds of a bf16 forward and backward pass over groups of responses of uneven length, and its useful FLOPs."""
    generator = random.Random(0)
    rows = []
    for group in range(groups):
        for _ in range(group_size):
            number = generator.randint(longest // 8, longest)
            rows.append(Encoded([group + 1] * prompt + [7] * number, [False] * prompt + [True] * number))
    batch = collate(rows, pad_id=0, device=model.device)

    def step() -> None:
        with computing_in("bf16", model.device):
            loss = response_logprobs(model, batch).mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    head = model.get_output_embeddings().weight.numel()
    body = sum(weight.numel() for weight in model.parameters()) - head
    responses = sum(sum(row.mask) for row in rows)
    return seconds(step, model.device), 6 * (body * (groups * prompt + responses) + head * responses)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """All measurements, as one JSON object."""
    device = torch.device(flags.device)
    quick = flags.quick
    model = new_model("tiny" if quick else "0.6B", device)
    bandwidth = copy_bandwidth(device, num_bytes=2**20 if quick else 2**31)
    peak = gemm_peak(device, size=64 if quick else 8192)
    weights = InferenceWeights(model, torch.bfloat16)
    answer: dict[str, Any] = {"device": _name(device), "copy_gb_s": bandwidth / 1e9, "gemm_tflops": peak / 1e12}
    answer["decode"] = []
    for context in (16,) if quick else (128, 512, 2048):
        for batch in (1, 3) if quick else (1, 8, 64, 256):
            floor = step_floor(weights, batch=batch, context=context, bandwidth=bandwidth)
            row = {"batch": batch, "context": context, "floor_ms": 1e3 * floor}
            for name, recorded in (("eager", False), ("graphs", True)):
                row[f"{name}_ms"] = 1e3 * decode(weights, batch=batch, context=context, recorded=recorded)
            row["share_of_floor"] = floor / (row["graphs_ms"] / 1e3)
            answer["decode"].append(row)
    answer["geometric"] = _geometric(model, quick=quick)
    sizes = {"groups": 2, "prompt": 8, "longest": 16} if quick else {"groups": 8, "prompt": 256, "longest": 512}
    spent, flops = training(model, group_size=4, **sizes)
    answer["training"] = {
        "seconds": spent,
        "useful_tflops": flops / spent / 1e12,
        "share_of_peak": flops / spent / peak,
    }
    return answer


def _geometric(model: PreTrainedModel, *, quick: bool) -> dict[str, float]:
    """Responses of geometric lengths (mean a quarter of the longest), prefloop and transformers, useful tokens."""
    number, new, vocab = (6, 8, 512) if quick else (256, 512, 151_936)
    generator = random.Random(0)
    prompts = [[generator.randrange(1, vocab) for _ in range(16)] for _ in range(number)]
    stops = generator.sample(range(1, vocab), 4 * vocab // new)
    half = new_model("tiny" if quick else "0.6B", model.device).to(torch.bfloat16)

    def ours() -> int:
        with computing_in("bf16", model.device):
            drawn = sample(
                model, prompts, max_new_tokens=new, temperature=1.0, stop_ids=stops, pad_id=0, seed=0, batch_size=128
            )
        return sum(len(row.ids) for row in drawn)

    tokens = ours()
    spent = seconds(ours, model.device, rounds=1)
    theirs = generate(half, prompts, new=new, stops=stops)
    return {"tokens": tokens, "seconds": spent, "tokens_per_second": tokens / spent, "times_generate": theirs / spent}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def report(answer: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    decoding = [
        [str(row["batch"]), str(row["context"])]
        + [f"{row[name]:.3f}" for name in ("eager_ms", "graphs_ms", "floor_ms")]
        + [f"{100 * row['share_of_floor']:.0f} %"]
        for row in answer["decode"]
    ]
    geometric, train = answer["geometric"], answer["training"]
    lines = [
        ["copy bandwidth", f"{answer['copy_gb_s']:.0f} GB/s"],
        ["GEMM peak, bf16", f"{answer['gemm_tflops']:.1f} TFLOP/s"],
        ["geometric lengths", f"{geometric['tokens_per_second']:.0f} useful tokens/s"],
        ["times transformers' generate", f"{geometric['times_generate']:.1f}"],
        ["training, useful", f"{train['useful_tflops']:.1f} TFLOP/s, {100 * train['share_of_peak']:.0f} % of the peak"],
    ]
    header = ["batch", "context", "eager, ms a step", "graphs, ms", "floor, ms", "graphs' share of the floor"]
    return f"{table(header, decoding)}\n\n{table([answer['device'], 'measured'], lines)}"


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", allow_abbrev=False)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu (with --quick)")
    parser.add_argument("--quick", action="store_true", help="a tiny model: proves that it runs, no more")
    parser.add_argument("--json", action="store_true", help="JSON instead of the table")
    flags = parser.parse_args(words)
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --device cpu --quick proves that it runs")
    answer = measure(flags)
    print(json.dumps(answer, indent=1) if flags.json else report(answer))


if __name__ == "__main__":
    main()

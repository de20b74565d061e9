"""transformers' `generate`, as TRL calls it, on its own.

    python -m benchmarks.peers.trl_generation CASE     (in the environment of TRL 1.16)

`case.settings`: `rows` generated at once, `order` "sorted" for prompts sorted by length, `cache` "static".
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import torch
from transformers import GenerationConfig

from benchmarks.peers import trl_trainers as shared
from benchmarks.peers.cases import BATCH, Case, told
from benchmarks.testbed import EOS_ID, PAD_ID, stop_ids


def main() -> None:
    """Run the case that the command line gives."""
    case = told()
    meter = shared.StepMeter(case).meter
    model, tokenizer = shared.policy(case).eval(), shared.tokenizer_of(case)
    ends = stop_ids(case.regime) or [EOS_ID]  # type: ignore[arg-type]
    config = GenerationConfig(
        max_new_tokens=case.new_tokens,
        min_new_tokens=case.new_tokens if case.regime == "fixed" else None,
        do_sample=True,
        top_k=0,
        top_p=1.0,
        temperature=1.0,
        pad_token_id=PAD_ID,
        eos_token_id=ends,
        cache_implementation=case.settings.get("cache"),
        disable_compile=True,
    )
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in shared.rows_of(case, "prompts.jsonl")]
    per_step = math.ceil(case.batch / case.group)
    meter.ready()
    for step in range(case.num_steps + 1):
        chosen = [prompts[(step * per_step + place) % len(prompts)] for place in range(per_step)]
        rows = [prompt for prompt in chosen for _ in range(case.group)]
        if case.settings.get("order") == "sorted":
            rows.sort(key=len)
        size = case.settings.get("rows", BATCH)
        for start in range(0, len(rows), size):
            count = generate(case, model, config, rows[start : start + size], torch.tensor(ends))
            meter.counts["generated"] += count
            meter.counts["tokens"] += count
        meter.counts["tokens"] += sum(map(len, rows))
        meter.step_done()


@torch.no_grad()
def generate(case: Case, model: Any, config: Any, rows: list[list[int]], ends: torch.Tensor) -> int:
    """Responses to some prompts; how many useful tokens they have."""
    width = max(map(len, rows))
    ids = torch.tensor([[PAD_ID] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.autocast("cpu", torch.bfloat16) if case.dtype == "bf16" else nullcontext():
        found = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    ended = torch.isin(found[:, width:], ends).int()
    return int(((ended.cumsum(1) - ended) == 0).sum())


if __name__ == "__main__":
    main()

"""How long, and how much memory, an audit of many pairs takes.

    python -m benchmarks.audit_scale [--pairs 1000000] [--json]

Writes synthetic pairs (about 1 kB each, English words at natural frequencies, several pairs to a prompt) to a
temporary file, audits it in a fresh process and prints seconds and peak memory of that process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

COMMON = """
the of and to a in is that it for on with as this be are by from or an which you can not have at but
will one if there more their when they what so about up its other into time than only some could
them like then first any my now these way people many water where well long made may part over new
sound take little work know place year live back give most very after thing our just name good
sentence man think say great help through much before line right too means old same tell boy follow
came want show also around form three small set put end does another well large must big even such
because turn here why ask went men read need land different home us move try kind hand picture again
change off play spell air away animal house point page letter mother answer found study still learn
should
"""
WORDS = COMMON.split()
"""Frequent English words, the most frequent first."""
PAIRS_PER_PROMPT = 4
RESPONSE_WORDS = 106
"""Two responses of this mean length and a prompt make about 1 kB."""
GIBIBYTE = 2**30


def write_pairs(path: Path, num_pairs: int, *, seed: int = 0) -> None:
    """Synthetic pairs, one a line; the longer response is chosen in 60 %."""
    generator = random.Random(seed)
    weights = list(accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))

    def text(num_words: int) -> str:
        words = generator.choices(WORDS, cum_weights=weights, k=num_words)
        return ". ".join(" ".join(words[start : start + 12]).capitalize() for start in range(0, num_words, 12)) + "."

    with path.open("w", encoding="utf-8") as file:
        prompt = ""
        for number in range(num_pairs):
            if number % PAIRS_PER_PROMPT == 0:
                prompt = f"{text(14)[:-1]}, case {number}?"
            sides = sorted((text(generator.randint(10, 2 * RESPONSE_WORDS - 10)) for _ in range(2)), key=len)
            if generator.random() < 0.6:
                sides.reverse()
            file.write(json.dumps({"prompt": prompt, "chosen": sides[0], "rejected": sides[1]}) + "\n")


def measure(num_pairs: int) -> dict[str, Any]:
    """Audit `num_pairs` synthetic pairs in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"
        write_pairs(path, num_pairs)
        size = path.stat().st_size
        started = time.perf_counter()
        words = ["-m", "prefloop", "audit", "data", str(path), "--audits", folder, "--json"]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        assert done.returncode in (0, 1), done.stderr
    # Of the largest child so far, in KiB: the audit is the only one.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "num_pairs": num_pairs,
        "bytes": size,
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
        "verdict": json.loads(done.stdout)["verdict"],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="Seconds and peak memory of an audit of synthetic pairs.")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = measure(options.pairs)
    if options.json:
        print(json.dumps(found))
        return
    print(
        f"{found['num_pairs']:,} pairs, {found['bytes'] / 1e9:.2f} GB: {found['seconds']:.0f} s "
        f"({found['processor_seconds']:.0f} s of processor time), "
        f"peak memory {found['peak_memory_bytes'] / GIBIBYTE:.2f} GiB"
    )


if __name__ == "__main__":
    main()

"""The small trunk that has read English: what it reads, and that it comes to a model."""

from __future__ import annotations

import gzip
import importlib
import json

from prefloop.rundir import resolve_model

trunk = importlib.import_module("benchmarks.trunk")


def rows(path, found):
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in found)


def test_it_reads_both_sides_alike_and_leaves_out_what_is_empty_or_long(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    rows(data / "preferences" / "a.jsonl.gz", [{"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}])
    rows(
        data / "sft" / "b.jsonl.gz",
        [{"prompt": "How?", "completion": "So."}, {"prompt": "x", "completion": "y" * 2000}],
    )
    with gzip.open(data / "xstest_completions_m.csv.gz", "wt", encoding="utf-8") as lines:
        lines.write("prompt,completion\nWho?,Me.\nWhen?,\n")
    found = trunk.demonstrations(data, seed=0)
    town = [each for each in found if each.prompt[-1].content not in ("Why?", "How?", "Who?")]
    answers = [each.completion[0].content for each in found if each not in town]
    assert sorted(answers) == ["Because.", "Me.", "No idea.", "So."] and len(town) == 2000
    trunk.main(["--data", str(data), "--out", str(tmp_path / "out"), "--quick"])
    assert resolve_model(str(tmp_path / "out" / "run"), "model").exists()

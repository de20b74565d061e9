"""The table of `make coverage`: shares by hand, and the limits."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

main = runpy.run_path(str(Path(__file__).with_name("coverage_table.py")))["main"]


def entry(lines: tuple[int, int], branches: tuple[int, int], missing: list[int]) -> dict[str, Any]:
    return {
        "summary": {
            "covered_lines": lines[0],
            "num_statements": lines[1],
            "covered_branches": branches[0],
            "num_branches": branches[1],
        },
        "missing_lines": missing,
        "missing_branches": [[3, 7], [8, -1]] if missing else [],
    }


@pytest.mark.parametrize(("lines", "code"), [(5, 0), (4, 1)])
def test_a_package_below_its_limit_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: int, code: int
) -> None:
    # train has 70 lines and branches, of which 18 + 40 + `lines` were run: 63 of 70 are 90 %.
    report = {
        "files": {
            "src/prefloop/cli.py": entry((10, 10), (0, 0), []),
            "src/prefloop/statistics/__init__.py": entry((0, 0), (0, 0), []),
            "src/prefloop/train/sft.py": entry((9, 10), (9, 10), [7]),
            "src/prefloop/train/algorithms/ppo.py": entry((20, 20), (20, 20), []),
            "src/prefloop/train/loop.py": entry((lines, 10), (0, 0), list(range(lines, 10))),
        }
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert main(str(tmp_path / "report.json")) == code
    out = capsys.readouterr().out
    assert "(top)                             100.0 %" in out
    assert ("below 90 %" in out) == (code == 1)
    assert "  train/sft.py                     90.0 %  7, 3->7, 8->exit" in out


def test_the_pure_maths_must_be_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = {"files": {"src/prefloop/functional/kl.py": entry((999, 1000), (0, 0), [5])}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert main(str(tmp_path / "report.json")) == 1
    assert "functional                         99.9 %  below 100 %" in capsys.readouterr().out

"""`make coverage`: the branch coverage of each file and package, and whether every package is above its limit.

Run as `python tests/coverage_table.py REPORT.json` on what `pytest --cov --cov-report=json` wrote. A share counts lines
and branches alike, as coverage.py's own total does.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

LIMITS = {"functional": 100.0, "statistics": 100.0}
"""Least share in per cent, by package: the pure maths has no line that a test cannot reach."""
OTHERS = 90.0
TOP = "(top)"
"""What the modules that are in no package are listed under."""


def package_of(path: str) -> str:
    """`src/prefloop/train/algorithms/ppo.py` -> `train`."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    inside = parts[parts.index("prefloop") + 1 :]
    return inside[0] if len(inside) > 1 else TOP


def share(covered: int, total: int) -> float:
    """In per cent; 100 of nothing."""
    return 100.0 * covered / total if total else 100.0


def packages(report: Mapping[str, Any]) -> dict[str, dict[str, tuple[int, int]]]:
    """Package -> file -> lines and branches that were run, and how many there are."""
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for path, entry in report["files"].items():
        summary = entry["summary"]
        covered = summary["covered_lines"] + summary["covered_branches"]
        found[package_of(path)][path] = covered, summary["num_statements"] + summary["num_branches"]
    return dict(sorted(found.items()))


def table(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The lines to print, and whether each keeps its limit: a package, then those of its files that are not whole."""
    for package, files in packages(report).items():
        covered, total = (sum(counts) for counts in zip(*files.values(), strict=True))
        limit, reached = LIMITS.get(package, OTHERS), share(covered, total)
        kept = reached >= limit
        yield f"{package:<32} {reached:6.1f} %" + ("" if kept else f"  below {limit:g} %"), kept
        for path, counts in sorted(files.items(), key=lambda item: share(*item[1])):
            if counts[0] < counts[1]:
                entry = report["files"][path]
                branches = [f"{start}->{end if end > 0 else 'exit'}" for start, end in entry["missing_branches"]]
                missing = ", ".join([*map(str, entry["missing_lines"]), *branches])
                name = path.replace("\\", "/").rpartition("prefloop/")[2]
                yield f"  {name:<30} {share(*counts):6.1f} %  {missing}", True


def main(path: str) -> int:
    """Print the table; 1 where a package is below its limit."""
    lines = list(table(json.loads(Path(path).read_text(encoding="utf-8"))))
    print("\n".join(line for line, _ in lines))
    return 0 if all(kept for _, kept in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

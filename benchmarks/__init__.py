"""Measurements behind docs/benchmarks.md: `python -m benchmarks.NAME` from the root of the repository.

Each prints a table and keeps its runs under --out, so that a second call goes on where the first one ended. Nothing
here is part of the package.
"""

import os

# Seconds of one thread can be compared on a machine that others use too. Set before torch is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
os.environ["HF_HUB_OFFLINE"] = "1"

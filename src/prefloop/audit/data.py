"""Is preference data fit to be optimised against? One pass over the file, then every probe on what was counted.

Rows that cannot be used are left out, counted and named in a finding of their own: an audit tells all that is wrong
with a file, rather than stopping at the first row. Weights of rows are not looked at.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from prefloop.audit.annotators import annotator_finding, pair_agreement, position_finding, units_of
from prefloop.audit.config import AuditDataConfig
from prefloop.audit.contents import (
    conflict_finding,
    coverage_finding,
    duplicate_findings,
    language_finding,
    leakage_finding,
    size_finding,
    unusable_finding,
)
from prefloop.audit.labels import noise_finding, ruler_finding
from prefloop.audit.learnable import hold_yardsticks
from prefloop.audit.shortcuts import shortcut_findings
from prefloop.audit.table import Table, distinct_pairs, number_of
from prefloop.audit.verdict import make_report
from prefloop.data.read import iter_prompts, nothing_usable
from prefloop.data.split import conversation_key
from prefloop.data.stream import Source, Tally, pairs_of_file
from prefloop.rundir import sha256_of
from prefloop.types import AuditReport, Finding


def audit(config: AuditDataConfig) -> AuditReport:
    """Audit a file. Raises InputError where it cannot be read at all, or holds no usable pair."""
    table, tally = Table(), Tally(skip_bad=True)
    for line, pair in pairs_of_file(Source(config.file), tally, table.add_vote):
        table.add(line, pair)
    if not len(table.ids):
        raise nothing_usable(tally, config.file)
    file = shlex.quote(config.file) + (" --skip-bad" if tally.bad else "")
    held_out = " ".join(map(shlex.quote, config.eval_data))
    findings = [_with_names(finding, file, held_out) for finding in _findings(config, table, tally)]
    return make_report(config.file, sha256_of(Path(config.file)), findings)


def _findings(config: AuditDataConfig, table: Table, tally: Tally) -> list[Finding]:
    limits, pairs, votes = config.thresholds, distinct_pairs(table), table.votes
    sticks, units = hold_yardsticks(table.sample), units_of(votes)
    held_out = conversations(config.eval_data) if config.eval_data else None
    return [
        size_finding(pairs, limits),
        language_finding(pairs, limits),
        *(_with_examples(finding, table) for finding in shortcut_findings(pairs, limits)),
        ruler_finding(sticks, limits),
        coverage_finding(pairs, table.examples, limits),
        noise_finding(sticks, pair_agreement(units, limits), limits),
        annotator_finding(votes, units, limits),
        position_finding(votes, limits),
        *duplicate_findings(pairs, limits),
        conflict_finding(pairs, limits),
        leakage_finding(_numbers(table) if config.eval_data else frozenset(), held_out, limits),
        unusable_finding(tally.num_rows, tally.bad, config.skip_bad),
    ]


def _with_names(finding: Finding, file: str, held_out: str) -> Finding:
    """The finding with a remedy that can be typed: the files that were looked at in place of FILE and HELD_OUT."""
    remedy = finding.remedy.replace(" FILE ", f" {file} ").replace(" HELD_OUT ", f" {held_out} ")
    return dataclasses.replace(finding, remedy=remedy)


def _with_examples(finding: Finding, table: Table) -> Finding:
    """The finding with pairs that show it: those in which the response with more of it was chosen, or was not."""
    if finding.human_rate is None:
        return finding
    direction = 1 if finding.human_rate >= 0.5 else -1
    return dataclasses.replace(finding, examples=table.examples.of(finding.name, direction))


def conversations(files: Sequence[str]) -> set[int]:
    """The conversations of data files, as `Table.clusters` has them."""
    return {number_of(conversation_key(prompt)) for prompt in iter_prompts(files, tally=Tally(skip_bad=True))}


def _numbers(table: Table) -> set[int]:
    return set(np.unique(np.frombuffer(table.clusters, dtype=np.uint64)).tolist())

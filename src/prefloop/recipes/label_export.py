"""`label export`: votes become preference pairs, audited; every vote as it was cast; verdicts of a review."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefloop.audit.config import AuditDataConfig
from prefloop.console import say
from prefloop.data.write import needs_messages, row_of, write_records
from prefloop.label.commands import opened
from prefloop.recipes.audit import data as audit_data
from prefloop.recipes.label_config import LabelExportConfig
from prefloop.review.verdicts import read_queue
from prefloop.rundir import output_file, write_rows
from prefloop.types import InputError, PreferencePair

if TYPE_CHECKING:
    from prefloop.label.records import Adjudication, Item, Vote


def export(config: LabelExportConfig) -> dict[str, Any]:
    """Write what is asked for. The verdict of the audit is told and kept; it is training that refuses.

    Raises InputError where nothing can be exported.
    """
    places = {field: _target(getattr(config, field), field) for field in ("out", "votes", "verdicts")}
    with opened(config) as store:
        from prefloop.label.settle import adjudications_of
        from prefloop.label.votes import items_of, votes_of

        items, votes, adjudications = items_of(store), votes_of(store), adjudications_of(store)
    answer: dict[str, Any] = {}
    if places["out"] is not None:
        answer |= _export_pairs(config, places["out"], items, votes, adjudications)
    if places["votes"] is not None:
        rows = vote_rows(votes, items, adjudications)
        write_rows(places["votes"], rows)
        answer["votes"] = {"file": str(places["votes"]), "num_votes": len(rows)}
    if places["verdicts"] is not None:
        rows = verdict_rows(votes, items, adjudications)
        answer = _export_verdicts(config, places["verdicts"], rows) | answer
    return answer


def _target(path: str | None, field: str) -> Path | None:
    if path is None:
        return None
    if not path.endswith(".jsonl"):
        raise InputError("is no name for JSON Lines", path=path, field=field, remedy="name a file that ends in .jsonl")
    return output_file(path, field)


def _export_pairs(
    config: LabelExportConfig,
    out: Path,
    items: Mapping[str, Item],
    votes: Sequence[Vote],
    adjudications: Mapping[str, Adjudication],
) -> dict[str, Any]:
    from prefloop.label.derive import ADJUDICATED, derive

    derived = derive(items, votes, config.method, keep_ties=config.keep_ties, adjudications=adjudications)
    if not derived.pairs:
        counts = ", ".join(f"{name} {count}" for name, count in derived.counts.items()) or "no votes"
        raise InputError(f"the votes give no pair ({counts})", path=config.database, remedy="collect votes first")
    write_records(out, [_plain(pair) for pair in derived.pairs] if config.strict_trl else derived.pairs)
    say(f"pairs: {out}")
    audited = audit_data(AuditDataConfig(file=str(out), audits=config.audits)).values
    worse = [f"{each['name']}: {each['message']}" for each in audited["findings"] if each["severity"] != "ok"]
    return {
        "out": str(out),
        "method": config.method,
        "num_pairs": len(derived.pairs),
        "num_adjudicated": sum(ADJUDICATED in pair.prompt.columns for pair in derived.pairs),
        "without_pair": dict(derived.counts),
        "audit": {"verdict": audited["verdict"], "report": audited["audit"], "findings": worse},
        "next": audited["next"],
    }


def _export_verdicts(config: LabelExportConfig, out: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if config.queue is not None:
        asked = {each.item_id for each in read_queue(config.queue)}
        rows = [row for row in rows if row["item_id"] in asked]
    if not rows:
        about = "" if config.queue is None else f" on an item of {config.queue}"
        raise InputError(f"nobody gave a verdict{about} yet", path=config.database, field="verdicts")
    write_rows(out, rows)
    queue = shlex.quote(config.queue or "QUEUE.jsonl")
    return {
        "verdicts": {"file": str(out), "num_verdicts": len(rows)},
        "next": f"prefloop review precision {queue} {shlex.quote(str(out))}",
    }


def _plain(pair: PreferencePair) -> PreferencePair:
    """The pair without what would make further columns."""
    prompt = dataclasses.replace(pair.prompt, columns={})
    return dataclasses.replace(
        pair, prompt=prompt, source="", strength=None, num_judgments=1, annotator_id="", weight=1.0
    )


def vote_rows(
    votes: Sequence[Vote], items: Mapping[str, Item], adjudications: Mapping[str, Adjudication]
) -> list[dict[str, Any]]:
    """Every standing vote on pairs as a row of judgments; `adjudicated` is the answer that its item was settled with.

    Repetitions stand first: who reads the file takes an annotator's last vote on a comparison, which is the one that
    the pairs are made of. They are marked, as votes on gold questions are.
    """
    from prefloop.label.votes import comparison_of

    kept = [vote for vote in votes if items[vote.item_id].kind == "pair" and not vote.undone]
    kept.sort(key=lambda vote: not vote.is_repeat)
    comparisons = {vote.item_id: comparison_of(items[vote.item_id]) for vote in kept}
    as_messages = any(needs_messages(each.prompt) for each in comparisons.values())
    rows = []
    for vote in kept:
        comparison = comparisons[vote.item_id]
        row: dict[str, Any] = {
            "comparison_id": comparison.comparison_id,
            "prompt": row_of(dataclasses.replace(comparison.prompt, columns={}), as_messages=as_messages)["prompt"],
            "response_a": comparison.response_a,
            "response_b": comparison.response_b,
            "choice": vote.choice,
            "strength": vote.strength,
            "annotator_id": vote.annotator_id,
            "shown_first": vote.shown_first,
            "seconds": vote.seconds or None,
            "guideline_version": vote.guideline_version,
            "at": vote.at,
            "reason": vote.reason,
            "flag": vote.flag,
            "note": vote.note,
            "is_repeat": vote.is_repeat,
            "gold": items[vote.item_id].gold,
        }
        if vote.item_id in adjudications:
            row["adjudicated"] = adjudications[vote.item_id].choice
        for name in ("model_a", "model_b"):
            row[name] = getattr(comparison, name) or None
        row["source"] = comparison.prompt.source or None
        rows.append({name: value for name, value in row.items() if value is not None})
    return rows


def verdict_rows(
    votes: Sequence[Vote], items: Mapping[str, Item], adjudications: Mapping[str, Adjudication]
) -> list[dict[str, Any]]:
    """The verdicts on a review queue as `review precision` reads them: of each reviewer the first one on an item, gold
    questions left out; then what settled items, marked."""
    from prefloop.label.opinions import deciding, standing

    first: dict[tuple[str, str], Vote] = {}
    for vote in deciding(standing(votes, items, "review"), items):
        first.setdefault((vote.item_id, vote.annotator_id), vote)
    cast = [
        {"item_id": item, "verdict": vote.choice, "reviewer": who, "kind": vote.reason or ""}
        for (item, who), vote in first.items()
    ]
    settled = [
        {"item_id": item, "verdict": each.choice, "reviewer": each.annotator_id, "kind": each.reason or ""}
        for item, each in adjudications.items()
        if items[item].kind == "review"
    ]
    return cast + [{**row, "adjudicated": True} for row in settled]

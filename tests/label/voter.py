"""Annotators in processes of their own, who vote as fast as they can: run by the tests, killed by some of them.

    python voter.py DATABASE DIRECTORY NUM_VOTES QUOTAS ANNOTATOR...

Forks one process for each annotator; they start together. Each writes to DIRECTORY/ANNOTATOR what it is about to send
and what was acknowledged, and begins with what was sent and not acknowledged when it was killed.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from prefloop.label.assign import lot, next_task
from prefloop.label.config import Quotas
from prefloop.label.records import Submission
from prefloop.label.store import Store, open_store
from prefloop.label.votes import submit, undo

UNDO_EVERY, TWICE_EVERY, TAB_EVERY = 7, 4, 5


class Voter:
    """One annotator and its diary."""

    def __init__(self, store: Store, annotator_id: str, path: Path, *, undoes: bool) -> None:
        self.store, self.annotator_id, self.undoes = store, annotator_id, undoes
        self.diary = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        self.acknowledged = sum(line["did"] == "voted" for line in lines)
        if lines and lines[-1]["did"] == "sends":
            self.send(lines[-1]["submission"])
        elif lines and lines[-1]["did"] == "undoes":
            self.take_back(lines[-1]["id"])

    def note(self, **values: Any) -> None:
        """One write for a line: whole or absent in the file after a kill."""
        os.write(self.diary, (json.dumps(values) + "\n").encode())

    def send(self, submission: dict[str, Any]) -> None:
        self.note(did="sends", submission=submission)
        vote = submit(self.store, self.annotator_id, Submission(**submission))
        self.note(did="voted", id=vote.submission_id, number=vote.number)
        self.acknowledged += 1
        if self.acknowledged % TWICE_EVERY == 0:
            assert submit(self.store, self.annotator_id, Submission(**submission)).number == vote.number
        if self.acknowledged % TAB_EVERY == 0 and not vote.undone:
            other = Submission(**{**submission, "submission_id": str(uuid.uuid4()), "choice": "tie"})
            assert submit(self.store, self.annotator_id, other).number == vote.number
        if self.undoes and self.acknowledged % UNDO_EVERY == 0:
            self.take_back(vote.submission_id)

    def take_back(self, submission_id: str) -> None:
        self.note(did="undoes", id=submission_id)
        vote = undo(self.store, self.annotator_id, submission_id=submission_id)
        assert vote is not None and vote.undone
        self.note(did="undone", id=submission_id)

    def work(self, num_votes: int, quotas: Quotas) -> None:
        """Vote until so many were acknowledged in all, or nothing is left."""
        while self.acknowledged < num_votes:
            task = next_task(self.store, self.annotator_id, quotas=quotas)
            if task is None:
                return
            again = next_task(self.store, self.annotator_id, quotas=quotas)
            assert again is not None and again.assignment_id == task.assignment_id
            choice = "a" if lot(self.annotator_id, task.item.item_id) < 0.6 else "b"
            name = str(uuid.uuid4())
            self.send({"submission_id": name, "assignment_id": task.assignment_id, "choice": choice, "seconds": 2.5})


def main(database: str, directory: str, num_votes: str, quotas: str, *annotators: str) -> None:
    settings = json.loads(quotas)
    undoes = settings.pop("undoes", False)
    ready, go = os.pipe()
    children = []
    for annotator_id in annotators:
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(ready, 1)
            with open_store(database) as store:
                voter = Voter(store, annotator_id, Path(directory, annotator_id), undoes=undoes)
                voter.work(int(num_votes), Quotas(**settings))
            os._exit(0)
        children.append(child)
    print(json.dumps(children), flush=True)
    os.close(go)
    # Not reaped before it is asked for: until then a process id is nobody else's.
    sys.stdin.readline()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

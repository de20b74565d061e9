"""The tables. `migrations.py` makes them; a test compares the two.

What `APPEND_ONLY` names only ever grows: triggers refuse to change or delete its rows. What else is derived from the
votes (`assignments.state`, `items.answers`) is written in the same transaction, so that a queue of a hundred thousand
items need not be counted for every task.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite numbers rows by itself only where the type is INTEGER.
Number = BigInteger().with_variant(Integer, "sqlite")

items = Table(
    "items",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("place", Number, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("response_a", Text, nullable=False),
    Column("response_b", Text),
    Column("model_a", Text),
    Column("model_b", Text),
    Column("gold", Text),
    Column("given_id", Text, unique=True),
    Column("facts", Text, nullable=False),
    Column("answers", Integer, nullable=False, server_default="0"),
    Column("at", Text, nullable=False),
)
Index("items_by_place", items.c.gold, items.c.answers, items.c.place)

people = Table(
    "people",
    metadata,
    Column("annotator_id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("at", Text, nullable=False),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("invited_by", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Column("used", Boolean, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("annotator_id", Text, ForeignKey("people.annotator_id"), nullable=False),
    Column("expires", Float, nullable=False),
    Column("ended", Boolean, nullable=False),
)

assignments = Table(
    "assignments",
    metadata,
    Column("assignment_id", Number, primary_key=True, autoincrement=True),
    Column("item_id", Text, ForeignKey("items.item_id"), nullable=False),
    Column("annotator_id", Text, ForeignKey("people.annotator_id"), nullable=False),
    Column("is_repeat", Boolean, nullable=False),
    Column("shown_first", Text, nullable=False),
    Column("guideline_version", Text, nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("state", Text, nullable=False),
    UniqueConstraint("item_id", "annotator_id", "is_repeat", name="once_for_each_annotator"),
    sqlite_autoincrement=True,
)
Index("assignments_by_annotator", assignments.c.annotator_id, assignments.c.state)

votes = Table(
    "votes",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("submission_id", Text, nullable=False, unique=True),
    Column("assignment_id", Number, ForeignKey("assignments.assignment_id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("item_id", Text, ForeignKey("items.item_id"), nullable=False),
    Column("annotator_id", Text, ForeignKey("people.annotator_id"), nullable=False),
    Column("choice", Text, nullable=False),
    Column("strength", Text),
    Column("reason", Text),
    Column("flag", Boolean, nullable=False),
    Column("note", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("guideline_version", Text, nullable=False),
    Column("shown_first", Text, nullable=False),
    Column("is_repeat", Boolean, nullable=False),
    Column("at", Text, nullable=False),
    UniqueConstraint("assignment_id", "attempt", name="one_vote_for_each_attempt"),
    sqlite_autoincrement=True,
)
Index("votes_by_annotator", votes.c.annotator_id, votes.c.number)

undos = Table(
    "undos",
    metadata,
    Column("vote_number", Number, ForeignKey("votes.number"), primary_key=True, autoincrement=False),
    Column("at", Text, nullable=False),
)

adjudications = Table(
    "adjudications",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("item_id", Text, ForeignKey("items.item_id"), nullable=False),
    Column("annotator_id", Text, ForeignKey("people.annotator_id"), nullable=False),
    Column("choice", Text, nullable=False),
    Column("strength", Text),
    Column("reason", Text),
    Column("note", Text, nullable=False),
    Column("at", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("adjudications_by_item", adjudications.c.item_id, adjudications.c.annotator_id)

reopenings = Table(
    "reopenings",
    metadata,
    Column("adjudication_number", Number, ForeignKey("adjudications.number"), primary_key=True, autoincrement=False),
    Column("annotator_id", Text, ForeignKey("people.annotator_id"), nullable=False),
    Column("at", Text, nullable=False),
)

log = Table(
    "log",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("about", Text, nullable=False),
    sqlite_autoincrement=True,
)

guidelines = Table(
    "guidelines",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
    Column("published_by", Text, nullable=False),
    Column("at", Text, nullable=False),
)

APPEND_ONLY = ("votes", "undos", "adjudications", "reopenings", "log", "guidelines")

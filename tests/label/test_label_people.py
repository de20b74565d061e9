"""Invitations work once and expire; the database holds no token."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.label.conftest import Clock, join

from prefloop.label.guidelines import current, publish
from prefloop.label.people import deactivate, events, invite, note_event, people, person_of, redeem
from prefloop.label.store import Store
from prefloop.types import InputError


def test_an_invitation_works_once_and_for_a_week(store: Store, clock: Clock) -> None:
    token = invite(store, name="Ann", role="annotator", by="owner")
    assert redeem(store, token[:-1]) is None and redeem(store, "") is None and redeem(store, "\ud800") is None
    redeemed = redeem(store, token)
    assert redeemed is not None and redeem(store, token) is None
    late = invite(store, name="Bob", role="annotator", by="owner")
    clock.time += 7 * 86400
    assert redeem(store, late) is None
    assert [each.name for each in people(store)] == ["Ann"]


def test_a_session_ends_after_thirty_days(store: Store, clock: Clock) -> None:
    redeemed = redeem(store, invite(store, name="Ann", role="owner", by="x"))
    assert redeemed is not None
    person, session = redeemed
    clock.time += 30 * 86400 - 1
    assert person_of(store, session) == person and person.role == "owner"
    clock.time += 1
    assert person_of(store, session) is None


def test_a_second_invitation_is_a_new_way_in_for_the_same_person(store: Store) -> None:
    ann = join(store, "Ann  Lee")
    assert join(store, "Ann Lee") == ann
    with pytest.raises(InputError, match="role: Ann Lee is annotator already"):
        invite(store, name="Ann Lee", role="owner", by="x")
    deactivate(store, ann, "owner")
    with pytest.raises(InputError, match="name: Ann Lee was deactivated"):
        invite(store, name="Ann Lee", role="annotator", by="x")
    with pytest.raises(InputError, match="no such person"):
        deactivate(store, "nobody", "owner")


def test_deactivation_ends_sessions_and_open_invitations(store: Store) -> None:
    redeemed = redeem(store, invite(store, name="Ann", role="annotator", by="x"))
    second = invite(store, name="Ann", role="annotator", by="x")
    assert redeemed is not None
    deactivate(store, redeemed[0].annotator_id, "owner")
    assert person_of(store, redeemed[1]) is None and redeem(store, second) is None


def test_no_token_is_in_the_file(store: Store) -> None:
    unused = invite(store, name="Bob", role="annotator", by="x")
    token = invite(store, name="Ann", role="annotator", by="x")
    redeemed = redeem(store, token)
    assert redeemed is not None
    data = Path(store.database).read_bytes()
    assert b"Ann" in data
    for secret in (unused, token, redeemed[1]):
        assert len(secret) >= 43 and secret.encode() not in data


@pytest.mark.parametrize("name", ["", "  ", "\u200b", "a\0b", "\x1b[31mred", "x" * 101])
def test_a_name_can_be_read(store: Store, name: str) -> None:
    with pytest.raises(InputError, match="name: "):
        invite(store, name=name, role="annotator", by="x")


def test_the_log_tells_who_did_what(store: Store) -> None:
    ann = join(store, "Ann")
    note_event(store, who="owner", what="exported", about="pairs.jsonl")
    deactivate(store, ann, "owner")
    assert [(each.who, each.what, each.about) for each in events(store)] == [
        ("test", "invited", "Ann as annotator"),
        (ann, "signed in", "Ann"),
        ("owner", "exported", "pairs.jsonl"),
        ("owner", "deactivated", ann),
    ]


def test_guidelines_have_versions(store: Store) -> None:
    default = current(store)
    assert default.version.startswith("default-") and "Which response is better?" in default.text
    # What holds already is no new version.
    assert publish(store, default.text, "owner") == default.version
    assert publish(store, "One.", "owner") == publish(store, "One.", "owner") == "1"
    assert publish(store, "Two.", "owner") == "2"
    assert current(store).text == "Two."
    with pytest.raises(InputError, match="text: is empty"):
        publish(store, " \n", "owner")

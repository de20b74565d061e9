"""In Chromium: nothing is judged that was not on the screen, and what became of a vote is said where one looks."""

from __future__ import annotations

import pytest
from sqlalchemy import event, text

from prefloop.label.people import invite
from prefloop.label.votes import votes_of

from .test_app_bad_input import HEBREW, LONG
from .test_app_browser import Window

PROMPT = "\n\n".join(["A long prompt."] * 40)
TALL = [
    {"prompt": PROMPT, "response_a": "from-a", "response_b": "from-b"},
    {"prompt": "long?", "response_a": LONG, "response_b": HEBREW},
]


@pytest.fixture
def ann(browser, served):
    window = Window(browser, served).enter("Ann")
    yield window
    assert (window.outside, window.dialogs, window.errors) == ([], [], [])
    window.close()


def in_view(page, selector):
    """Whether all of it is on the screen."""
    box = page.locator(selector).bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= page.viewport_size["height"]


@pytest.mark.parametrize("served", [TALL], indirect=True, ids=["tall"])
def test_nothing_unseen_is_judged_and_odd_texts_can_be_read(served, ann):
    page = ann.page
    page.emulate_media(reduced_motion="reduce")
    for number in range(2):
        # One press on what was never on the screen, folded or below it, shows it instead.
        ann.press("1", "There is more to read")
        assert len(votes_of(served.store)) == number and page.locator(".folded").count() == 0
        tops = [page.locator(each).first.bounding_box()["y"] for each in (".response", ".dock")]
        assert tops[0] + 60 < tops[1]
        assert in_view(page, "#said") and in_view(page, "#question") and in_view(page, ".votes.pair")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#pace").inner_text().count("at most 10 left") == 1
        ann.press("1", "Saved: left")
    assert len(votes_of(served.store)) == 2


@pytest.mark.parametrize("served", [TALL[:1]], indirect=True, ids=["tall"])
def test_who_has_scrolled_to_the_end_is_not_held_up(served, ann):
    ann.page.emulate_media(reduced_motion="reduce")
    ann.page.keyboard.press("End")
    # What is seen is noted as the page scrolls, not as the key is pressed.
    everything = "document.querySelectorAll('#task .response:not([data-seen])').length == 0"
    assert any(ann.page.evaluate(everything) or ann.page.wait_for_timeout(50) for _ in range(200))
    assert ann.page.evaluate("scrollY > 100")
    ann.press("t", "Saved: a tie")


def test_a_full_disk_is_said_at_the_buttons_and_the_vote_is_sent_again(served, ann):
    """SQLite's own limit on pages raises what a full disk raises."""
    page = ann.page
    with served.store.reading() as connection:
        limit = [connection.execute(text("PRAGMA page_count")).scalar_one()]
    event.listen(served.store.engine, "connect", lambda each, _: each.execute(f"PRAGMA max_page_count = {limit[0]}"))
    page.keyboard.press("n")
    page.fill("#note", "x" * 9000)
    page.keyboard.press("Escape")
    ann.press("4", "Not saved")
    told = page.inner_text("#problem-text")
    assert told.startswith("NOT saved: nothing was saved: ") and "full" in told and in_view(page, "#problem")
    assert votes_of(served.store) == []
    limit[0] = 10**6
    page.click("#retry")
    ann.said("Saved: right is clearly better")
    assert [vote.note for vote in votes_of(served.store)] == ["x" * 9000] and page.locator("#problem").is_hidden()


def test_what_is_something_else_must_be_said(served, ann):
    ann.page.keyboard.press("s")
    ann.press("5", "Say in the note what it is")
    assert votes_of(served.store) == []
    ann.page.keyboard.type("it is a poem")
    ann.page.keyboard.press("Escape")
    ann.page.keyboard.press("s")
    ann.press("5", "Saved: skipped")
    assert [(vote.reason, vote.note) for vote in votes_of(served.store)] == [("other", "it is a poem")]


def test_the_whole_link_can_be_pasted(served, browser):
    code = invite(served.store, name="Bea", role="annotator", by="a test")
    window = Window(browser, served)
    window.page.goto(f"{served.url}/enter")
    window.page.fill("#code", f"{served.url}/enter#{code}")
    window.page.click("main button")
    window.page.wait_for_url(served.url + "/")
    window.close()

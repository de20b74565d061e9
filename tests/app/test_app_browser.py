"""The app in headless Chromium: by keyboard, by two people, on a phone, in the dark, and when the server is away."""

from __future__ import annotations

import re

import pytest

from prefloop.label.people import end_session, invite, redeem
from prefloop.label.votes import items_of, votes_of

from .conftest import Site, fill, pairs
from .test_app_texts import PAYLOADS

WAIT = 15_000


class Window:
    """A browser of its own: its cookies, and all that it asked for or complained of."""

    def __init__(self, browser, site: Site, **options):
        self.site, self.context = site, browser.new_context(viewport={"width": 1200, "height": 800}, **options)
        self.context.set_default_timeout(WAIT)
        self.page = self.context.new_page()
        self.outside, self.dialogs, self.errors = [], [], []
        self.context.route("**/*", self._route)
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _route(self, route):
        if route.request.url.startswith(self.site.url + "/"):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def enter(self, name, role="annotator"):
        code = invite(self.site.store, name=name, role=role, by="a test")
        self.page.goto(f"{self.site.url}/enter#{code}")
        self.page.wait_for_url(self.site.url + "/")
        self.page.locator("#said").filter(has_text=re.compile("^(?!Loading)")).wait_for()
        return self

    def said(self, words):
        self.page.locator("#said").filter(has_text=words).wait_for()

    def press(self, key, words):
        """One key, and what the status line must then say; then the line is emptied, so that the next wait is real."""
        self.page.evaluate("document.querySelector('#said').textContent = ''")
        self.page.keyboard.press(key)
        self.said(words)

    def orders(self):
        texts = self.page.locator(".response .shown").all_inner_texts()
        return ["a" if "from-a" in text else "b" for text in texts]

    def close(self):
        self.context.close()


@pytest.fixture
def window(browser, served):
    opened = []

    def make(**options):
        opened.append(Window(browser, served, **options))
        return opened[-1]

    yield make
    for each in opened:
        assert (each.outside, each.dialogs, each.errors) == ([], [], [])
        each.close()


def test_ten_pairs_by_keyboard_and_undo(served, window):
    ann = window().enter("Ann")
    keys = [("1", "left is clearly"), ("2", "left is slightly"), ("3", "right is slightly"), ("4", "right is clearly")]
    keys += [("t", "a tie"), ("b", "both bad")]
    expected = []
    for number, (key, words) in enumerate(keys):
        left, right = ann.orders()
        expected.append({"1": left, "2": left, "3": right, "4": right, "t": "tie", "b": "both_bad"}[key])
        ann.press(key, f"Saved: {words}")
        assert len(votes_of(served.store)) == number + 1
    assert [vote.choice for vote in votes_of(served.store)] == expected
    assert [vote.strength for vote in votes_of(served.store)][:5] == [
        "clearly",
        "slightly",
        "slightly",
        "clearly",
        None,
    ]
    prompt = ann.page.inner_text(".prompt .shown")
    ann.press("u", "Taken back: both bad")
    assert ann.page.inner_text(".prompt .shown") != prompt
    assert len(votes_of(served.store)) == 5
    ann.press("t", "Saved: a tie")
    # Flag and note go with the next verdict; keys that are typed into the note are no verdict.
    ann.press("f", "Flagged")
    ann.page.keyboard.press("n")
    ann.page.keyboard.type("12 tbs")
    ann.page.keyboard.press("Escape")
    ann.press("1", "Saved: left")
    ann.page.keyboard.press("s")
    ann.press("2", "Saved: skipped")
    ann.press("t", "Saved: a tie")
    ann.press("t", "Nothing is left")
    votes = votes_of(served.store)
    assert len(votes) == 10 and len({vote.item_id for vote in votes}) == 10
    assert [(vote.flag, vote.note) for vote in votes if vote.note] == [(True, "12 tbs")]
    assert [vote.reason for vote in votes if vote.choice == "skip"] == ["subject"]
    assert len(votes_of(served.store, with_undone=True)) == 11
    # Also after the last one, and after a reload.
    ann.page.reload()
    ann.said("Nothing is left")
    ann.press("u", "Taken back: a tie")
    assert len(votes_of(served.store)) == 9


def test_two_people_do_not_get_the_same_item(served, window):
    ann, ben = window().enter("Ann"), window().enter("Ben")
    for _ in range(3):
        ann.press("1", "Saved")
        ben.press("4", "Saved")
    votes = votes_of(served.store)
    assert len({vote.item_id for vote in votes}) == 6 and len({vote.annotator_id for vote in votes}) == 2


def test_what_is_not_saved_is_said_and_kept_and_sent_again(served, window):
    ann = window().enter("Ann")
    page = ann.page
    # The vote arrives and its answer is lost; then the server is away; then it is back.
    answers = iter(["lost", "away", "away"])
    sent = []

    def meddle(route):
        sent.append(route.request.post_data_json["submission_id"])
        what = next(answers, None)
        if what is None:
            route.continue_()
            return
        if what == "lost":
            route.fetch()
        route.abort()

    page.route("**/vote", meddle)
    ann.press("1", "Not saved")
    assert page.inner_text("#problem-text").startswith("NOT saved: the server cannot be reached")
    assert page.locator("#problem").is_visible() and page.locator("#controls").get_attribute("inert") is not None
    assert len(votes_of(served.store)) == 1
    prompt = page.inner_text(".prompt .shown")
    # Another verdict is not taken meanwhile, and a reload forgets nothing.
    page.keyboard.press("4")
    page.reload()
    ann.said("Not saved")
    page.click("#retry")
    ann.said("Saved: left is clearly better")
    assert len(set(sent)) == 1 and len(sent) >= 3
    assert [vote.submission_id for vote in votes_of(served.store)] == sent[:1]
    assert page.inner_text(".prompt .shown") != prompt and page.locator("#problem").is_hidden()


def test_a_vote_without_a_session_waits_for_the_next_one(served, window):
    ann = window().enter("Ann")
    cookie = next(each for each in ann.context.cookies() if each["name"].startswith("prefloop"))
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict"
    end_session(served.store, cookie["value"])
    ann.press("4", "Not saved")
    assert "once you are signed in" in ann.page.inner_text("#problem-text")
    assert ann.page.locator("#sign-in").is_visible()
    assert votes_of(served.store) == []
    ann.enter("Ann")
    ann.said("Saved: right is clearly better")
    assert len(votes_of(served.store)) == 1


def test_a_review_by_keyboard(served, window, tmp_path):
    rows = [{"task": "review", "prompt": f"p {i}", "response": f"r {i}", "score": 1.0, "reasons": []} for i in range(2)]
    fill(served.store, tmp_path / "queue.jsonl", rows)
    rita = window().enter("Rita", "reviewer")
    seen = 0
    while seen < 2:
        if rita.page.inner_text("h1") == "Is it a hack?":
            seen += 1
            rita.page.keyboard.press("1")
            rita.page.wait_for_selector("#kind[open]")
            rita.press("2", "Saved: a hack")
        else:
            rita.press("t", "Saved: a tie")
    votes = votes_of(served.store, kind="review")
    assert [(vote.choice, vote.reason) for vote in votes] == [("hack", "invented_source")] * 2


LONG = {"prompt": "long?", "response_a": "word " * 3000, "response_b": "x" * 3000}


@pytest.mark.parametrize("served", [[*pairs(2), LONG]], indirect=True, ids=["long"])
def test_on_a_phone_and_in_the_dark(served, window):
    phone = window(is_mobile=True, has_touch=True, color_scheme="dark")
    phone.page.set_viewport_size({"width": 360, "height": 740})
    phone.enter("Ann")
    page = phone.page
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert max(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")) < 60
    boxes = [each.bounding_box() for each in page.locator(".response").all()]
    assert boxes[0]["y"] + boxes[0]["height"] <= boxes[1]["y"]
    assert all(each.bounding_box()["height"] >= 36 for each in page.locator(".votes.pair button").all())
    for _ in range(3):
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        if page.inner_text(".prompt .shown") == "long?":
            # A verdict on what nobody could see is not taken: the first press shows the rest.
            page.tap(".votes .left")
            phone.said("There is more to read")
            assert page.locator(".folded").count() == 0
        page.evaluate("document.querySelector('#said').textContent = ''")
        page.tap(".votes .left")
        phone.said("Saved: left")
    assert len(votes_of(served.store)) == 3


def test_a_screen_reader_finds_its_way(served, window):
    ann = window().enter("Ann")
    page = ann.page
    assert page.evaluate("document.activeElement.id") == "prompt-title"
    for role, name in [("region", "Prompt"), ("region", "Left"), ("region", "Right"), ("group", "Which is better?")]:
        assert page.get_by_role(role, name=name).count() == 1, name
    assert page.get_by_role("status").inner_text() == "Your verdict is one press, of a key or a button."
    assert page.get_by_role("button", name="Left, clearly").get_attribute("aria-keyshortcuts") == "1"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, a, input, textarea, progress')].filter("
        "e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert unnamed == 0
    # By tab and space alone.
    page.get_by_role("button", name="Tie").focus()
    page.keyboard.press("Space")
    ann.said("Saved: a tie")
    assert page.evaluate("document.activeElement.id") == "prompt-title"
    # Single keys can be switched off.
    page.keyboard.press("?")
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.wait_for_timeout(200)
    assert len(votes_of(served.store)) == 1


MIXED = [
    {"prompt": "\n\n".join(PAYLOADS[i : i + 42]), "response_a": "\n\n".join(PAYLOADS[i : i + 42]), "response_b": f"{i}"}
    for i in range(0, len(PAYLOADS), 42)
]


@pytest.mark.parametrize("served", [MIXED], indirect=True, ids=["payloads"])
def test_no_payload_does_anything(served, window):
    """All payloads as prompts and responses, and many as notes, names and guidelines."""
    eve = window().enter("<img src=x onerror=alert(1)>", "owner")
    blocked = []
    eve.page.on("console", lambda message: blocked.append(message.text) if message.type == "error" else None)
    for _ in range(len(MIXED)):
        eve.page.keyboard.press("x")
        eve.page.fill("#note", PAYLOADS[len(votes_of(served.store)) * 41], force=True)
        eve.press("f", "Flagged")
        eve.press("t", "There is more to read")
        eve.press("t", "a tie")
    eve.page.goto(served.url + "/guidelines")
    eve.page.fill("#text", "\n\n".join(PAYLOADS))
    eve.page.click("text=Publish >> nth=-1")
    for path in ("/guidelines", "/people", "/disagreements", "/log", "/quality"):
        eve.page.goto(served.url + path)
        eve.page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        eve.page.wait_for_timeout(50)
        assert eve.page.locator("main img, main svg, main iframe, main script, main style, main object").count() == 0
    # Not even the policy had anything to block.
    assert blocked == []
    items = items_of(served.store)
    assert sum("onerror" in items[vote.item_id].prompt for vote in votes_of(served.store)) >= 3


def test_the_policy_stops_what_should_ever_get_through(served, window):
    ann = window().enter("Ann")
    ran = ann.page.evaluate(
        """async () => {
          const main = document.getElementById("main");
          const image = document.createElement("img");
          const failed = new Promise(done => { image.onerror = () => done(true); image.onload = () => done(false); });
          image.src = "https://evil.example/p.png";
          main.append(image);
          const script = document.createElement("script");
          let refused = false;
          try { script.text = "window.hit = 1"; main.append(script); } catch { refused = true; }
          try { main.innerHTML = "<b>x</b>"; } catch { refused = refused && true; }
          return [await failed, refused, window.hit ?? 0];
        }"""
    )
    assert ran == [True, True, 0]


def test_a_session_is_no_use_in_another_browser_without_its_cookie(served, window):
    found = redeem(served.store, invite(served.store, name="Ann", role="annotator", by="a test"))
    assert found is not None
    other = window()
    other.page.goto(served.url + "/")
    assert other.page.url == served.url + "/enter"

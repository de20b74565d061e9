"""What a model, a person or an import wrote can do nothing on a page: checked in the HTML itself.

`payloads.json` is of our own making: known classes of attack, as Markdown, HTML, SVG, MathML, URLs and encodings.
"""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefloop.app.markdown import as_html, cleaned
from prefloop.label.people import note_event

from .conftest import site_with

PAYLOADS: list[str] = json.loads(Path(__file__).with_name("payloads.json").read_text(encoding="ascii"))
# Written here once more by hand: what may come out, whatever goes in.
TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
HARMLESS = {*TABLE, "p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "span"}
HARMLESS |= {"h2", "h3", "h4", "h5", "h6"}
OURS = {"html", "head", "meta", "title", "link", "script", "body", "a", "header", "nav", "main", "section", "article"}
OURS |= {"h1", "div", "b", "details", "summary", "caption", "figure", "figcaption"}
OURS |= {"form", "label", "input", "select", "option", "textarea", "button"}


class Seen(HTMLParser):
    """All elements and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        # A slice of Markup would escape what is added to it.
        self.feed(str(html))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def require_harmless(html: str) -> None:
    for tag, attributes in Seen(html).tags:
        assert tag in HARMLESS, (tag, html)
        for name, value in attributes.items():
            allowed = {"span": {"class": ("link", "address", "image")}, "pre": {"class": ("plain",)}}.get(tag, {})
            assert value in allowed.get(name, ()) or ((tag, name) == ("ol", "start") and value.isdigit()), (
                tag,
                name,
                html,
            )


def require_ours(html: str) -> None:
    """A whole page: nothing inline, and every address on it is one of the app's own."""
    for tag, attributes in Seen(html.removeprefix("<!doctype html>")).tags:
        assert tag in HARMLESS | OURS, tag
        assert not any(name.startswith("on") or name in ("style", "srcdoc", "formaction") for name in attributes), tag
        for name in ("href", "src", "action"):
            value = attributes.get(name, "/")
            assert (value.startswith("/") and not value.startswith("//")) or value in ("#main", "#settled"), (
                tag,
                value,
            )
        assert tag != "script" or attributes["src"].startswith("/static/")


def test_there_are_enough_payloads():
    assert len(set(PAYLOADS)) >= 200


@pytest.mark.parametrize("before", ["", "text ", "- ", "> ", "\n\n", "```\n", "[a](", "<div>\n"])
def test_no_payload_becomes_more_than_text(before):
    for payload in PAYLOADS:
        require_harmless(as_html(before + payload))


def test_the_second_wall_holds_alone():
    for payload in PAYLOADS:
        require_harmless(cleaned(payload))


def test_the_check_can_fail():
    with pytest.raises(AssertionError):
        require_harmless("<p onclick=x>y</p>")
    with pytest.raises(AssertionError):
        require_harmless("<img src=x>")
    with pytest.raises(AssertionError):
        require_ours("<a href=//evil.example>x</a>")


@given(
    st.lists(st.sampled_from(["<", ">", "[", "](", "!", "`", "\n", '"', "&#", "onload=", "svg", "a", ":", "|", "-"]))
)
def test_no_mixture_becomes_more_than_text(parts):
    require_harmless(as_html("".join(parts)))


def test_markdown_is_set_and_addresses_can_be_read():
    assert as_html("# a\n## b", top=2) == "<h2>a</h2>\n<h3>b</h3>\n"
    assert as_html("# a\n##### b") == "<h4>a</h4>\n<h6>b</h6>\n"
    html = as_html("# Title\n**bold** [a survey](https://made.up/x) ![a chart](http://p.q/c.png)\nnext\n\n3. three")
    assert "<h4>Title</h4>" in html and "<strong>bold</strong>" in html and '<ol start="3">' in html
    text = Seen(html).text
    assert "a survey (https://made.up/x)" in text and "[image: a chart] (http://p.q/c.png)" in text
    assert html.count("<br>") == 1


def test_html_in_a_text_stays_readable():
    text = "if a<b and c>d: <script>alert(1)</script> & &amp;"
    assert Seen(as_html(text)).text.strip() == "if a<b and c>d: <script>alert(1)</script> & &"


def test_a_very_long_text_is_shown_as_it_is():
    text = "**x** <b>" * 20_000
    assert Seen(as_html(text)).text == text
    require_harmless(as_html(text))


def test_what_people_write_stays_text_on_every_page(tmp_path):
    rows = [{"prompt": p, "response_a": p, "response_b": p + "?"} for p in PAYLOADS[:8]]
    made = site_with(tmp_path, rows)
    with made.store:
        owner, annotator = made.signed_in("owner"), made.signed_in("annotator", "<script>alert(1)</script>")
        for payload in PAYLOADS[::9]:
            note_event(made.store, who=payload, what=payload, about=payload)
        printable = [p[:100] for p in PAYLOADS if p.isprintable()][::9]
        for name in printable:
            require_ours_but_link(owner.post("/people/invite", data={"name": name, "role": "annotator"}).text)
        for number in range(8):
            task = annotator.post("/task", json={}).json()["task"]
            body = {"submission_id": f"{number:08d}-0000-0000-0000-{0:012d}", "assignment_id": task["assignment_id"]}
            body |= {
                "choice": "skip",
                "seconds": 1,
                "flag": True,
                "note": PAYLOADS[-number],
                "reason": PAYLOADS[-number][:200],
            }
            assert annotator.post("/vote", json=body).status_code == 200
        owner.post("/guidelines", data={"text": "\n\n".join(PAYLOADS)})
        for path in ("/people", "/log", "/disagreements", "/guidelines", "/quality", "/guidelines/%3Cscript%3E"):
            page = owner.get(path, headers={"Accept": "text/html"})
            require_ours(page.text)
        assert "&lt;script&gt;alert(1)" in owner.get("/people").text
        assert "<script>alert" not in "".join(owner.get(path).text for path in ("/people", "/log", "/disagreements"))


def require_ours_but_link(html: str) -> None:
    require_ours(html)
    assert "/enter#" in Seen(html).text

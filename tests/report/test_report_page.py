"""The page as a browser reads it: what stands in it stays text, and it asks nobody for anything."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefloop.report import page as page_module
from prefloop.report.page import (
    Answer,
    Exchange,
    Fold,
    PageSection,
    Plot,
    Plots,
    Points,
    Prose,
    Table,
    Terms,
    Verbatim,
    embed_json,
    plotly_js,
    render_page,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "</pre></style></title><svg onload='x'>",
    '"\'><b onmouseover="x">',
    "<!-- <script>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;",
    "${alert(1)} \\u003c/script>",
)


def page_with(text):
    """Every kind of block with the same text in every place that takes one."""
    figure = {
        "data": [{"type": "scatter", "x": [0, 1], "y": [1, 2], "name": text}],
        "layout": {"title": {"text": text}},
    }
    plot = Plot(figure, text, text)
    blocks = [
        Prose(text, lead=text),
        Points([Prose(text, text)], numbered=True),
        Points([Prose(text)]),
        Terms([(text, text)]),
        Table([text, text], [[text, text]], caption=text),
        plot,
        Plots([plot, plot]),
        Plots([plot], small=True),
        Exchange(text, [Answer(text, text, [(text, text)], tone="hacked"), Answer("B", "")], label=text),
        Verbatim(text),
    ]
    sections = [PageSection(text, "first", [*blocks, Fold(text, blocks)]), PageSection("Second", "second")]
    return render_page(sections, title=text, subtitle=text)


@pytest.fixture(scope="module")
def harmless(read_page):
    return read_page(page_with("plain words"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, harmless, read_page):
    read = read_page(page_with(text))
    # Same elements and attributes as with harmless text: nothing was opened, closed or added.
    assert read.tags == harmless.tags
    assert read.attributes == harmless.attributes
    assert len(read.scripts) == 2 and all(read.runs(script) for script in read.scripts)
    assert [figure["data"][0]["name"] for figure in read.figures] == [text] * len(read.figures)
    assert " ".join(text.split()) in read.words


@settings(max_examples=60)
@given(st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_json_survives_a_script_element(value):
    embedded = str(embed_json(value))
    assert not set("<>&\u2028\u2029") & set(embedded)
    assert json.loads(embedded) == value


def test_numbers_that_json_lacks_become_gaps():
    assert json.loads(embed_json({"y": [1.0, float("nan"), (float("inf"),)]})) == {"y": [1.0, None, [None]]}


def test_a_page_loads_nothing(harmless):
    page = page_with("plain words").replace(plotly_js(), "")
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert "url(" not in page and "@import" not in page
    assert harmless.policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in harmless.policy and "connect-src" not in harmless.policy


def test_only_scripts_of_known_content_run(harmless):
    assert len(harmless.allowed) == 2
    assert not harmless.runs("alert(1)")


def test_plotly_stands_in_the_page_once():
    page = page_with("plain words")
    assert page.count(plotly_js()) == 1
    assert "Plotly" in plotly_js() and len(plotly_js()) > 1_000_000


def test_a_script_that_would_end_itself_is_mended(monkeypatch, tmp_path):
    class Spec:
        origin = str(tmp_path / "__init__.py")

    (tmp_path / "package_data").mkdir()
    (tmp_path / "package_data" / "plotly.min.js").write_text('a = "</script>" + "<!--";')
    monkeypatch.setattr(page_module.importlib.util, "find_spec", lambda name: Spec)
    assert plotly_js.__wrapped__() == 'a = "<\\/script>" + "<\\!--";'


def test_document_starts_with_its_type_and_speaks_utf8():
    page = render_page([PageSection("Ä", "a", [Prose("Grüße 漢字")])], title="π")
    assert page.lstrip().startswith("<!doctype html>")
    assert '<meta charset="utf-8">' in page[:400]
    assert "Grüße 漢字" in page


def test_navigation_reaches_every_section():
    page = render_page([PageSection("One", "one"), PageSection("Two", "two")], title="t")
    for anchor in ("one", "two"):
        assert f'href="#{anchor}"' in page and f'id="{anchor}"' in page


def test_two_sections_cannot_share_an_anchor():
    with pytest.raises(AssertionError):
        render_page([PageSection("One", "same"), PageSection("Two", "same")], title="t")


def test_numbers_are_right_aligned_from_the_column_that_says_so():
    page = render_page([PageSection("T", "t", [Table(["name", "value"], [["x", "1"]])])], title="t")
    assert "<td>x</td>" in page and '<td class="number">1</td>' in page


def test_nested_folds_show_their_blocks():
    inner = Fold("inner", [Prose("deep")])
    page = render_page([PageSection("T", "t", [Fold("outer", [inner])])], title="t")
    assert page.count("<details>") == 2 and "deep" in page

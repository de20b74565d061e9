"""What a model wrote -> HTML that can be looked at and can do nothing.

Two walls: markdown-it reads Markdown only, HTML in the text stays text; nh3 lets only the elements below through, none
of which can load, link or run anything. The page's Content-Security-Policy is the third. Links and images are shown as
their words and address, since an invented source is what a reader is to find, and none can be clicked by accident.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markupsafe import Markup

MAX_MARKDOWN = 100_000
"""Characters up to which a text is read as Markdown; a longer one is shown as it is."""
TOP = 4
"""Level of a text's first heading: below those of the page, so that a screen reader's outline stays the page's."""
TAGS = frozenset(
    {"p", "br", "hr", "strong", "em", "s", "code", "pre", "blockquote", "ul", "ol", "li", "span"}
    | {"h2", "h3", "h4", "h5", "h6"}
    | {"table", "thead", "tbody", "tr", "th", "td"}
)
ATTRIBUTES = {"ol": {"start"}, "span": {"class"}}
CLASSES = frozenset({"link", "address", "image"})


def as_html(text: str, *, breaks: bool = True, top: int = TOP) -> Markup:
    """Markdown as harmless HTML. `breaks`: a line of the text is a line on the screen, as models mean it. `top`: level
    of its first heading."""
    if len(text) > MAX_MARKDOWN:
        return Markup('<pre class="plain">{}</pre>').format(text)
    return cleaned(_reader(breaks).render(text, {"top": top}))


def cleaned(html: str) -> Markup:
    """HTML without all that could load, link or run anything."""
    return Markup(
        nh3.clean(
            html,
            tags=set(TAGS),
            attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
            attribute_filter=_attribute,
            url_schemes=set(),
            link_rel=None,
        )
    )


def _attribute(tag: str, name: str, value: str) -> str | None:
    if name == "class":
        return value if value in CLASSES else None
    return value if value.isascii() and value.isdigit() else None


@functools.cache
def _reader(breaks: bool) -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "breaks": breaks, "linkify": False})
    reader.enable(["table", "strikethrough"])
    reader.core.ruler.push("lower_headings", _lower_headings)
    reader.add_render_rule("link_open", _link_open)
    reader.add_render_rule("link_close", _link_close)
    reader.add_render_rule("image", _image)
    return reader


def _lower_headings(state: StateCore) -> None:
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + state.env['top'] - 1)}"


def _link_open(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    return '<span class="link">'


def _link_close(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    level, start = tokens[index].level, index
    while tokens[start].type != "link_open" or tokens[start].level != level:
        start -= 1
    return f'</span> <span class="address">({escapeHtml(str(tokens[start].attrGet("href") or ""))})</span>'


def _image(self: Any, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    words = self.renderInlineAsText(token.children or [], options, env)
    address = escapeHtml(str(token.attrGet("src") or ""))
    return f'<span class="image">[image: {escapeHtml(words)}]</span> <span class="address">({address})</span>'

"""Blocks of content -> one HTML file that needs nothing else.

Text reaches the page through Jinja2's autoescape, figures through JSON in which no tag can end, and the policy in the
page's head lets only the two scripts run that stand in it by hash: what a model wrote stays text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

Figure = Mapping[str, Any]
"""A plotly.js figure: {"data": [traces], "layout": {...}}."""

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Prose:
    """A paragraph, with a few words in bold before it."""

    text: str
    lead: str = ""
    kind: ClassVar[str] = "prose"


@dataclass(frozen=True)
class Points:
    """A list of paragraphs; numbered where the order matters."""

    items: Sequence[Prose]
    numbered: bool = False
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Terms:
    """Words and what they mean on this page."""

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "terms"


@dataclass(frozen=True)
class Table:
    """Rows of text; columns from `numeric_from` on are set right-aligned."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    numeric_from: int = 1
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Plot:
    """A figure with a heading and the words that a reader without eyes for it gets."""

    figure: Figure
    title: str
    caption: str = ""
    kind: ClassVar[str] = "plot"

    @property
    def height(self) -> int:
        """Pixels kept free before the figure is drawn."""
        return int(self.figure["layout"].get("height", 320))


@dataclass(frozen=True)
class Plots:
    """Figures side by side, one below the other where the screen is narrow."""

    items: Sequence[Plot]
    small: bool = False
    """Three columns rather than two."""
    title: str = ""
    kind: ClassVar[str] = "plots"


@dataclass(frozen=True)
class Answer:
    """What one policy wrote, and what was made of it."""

    author: str
    text: str
    marks: Sequence[tuple[str, str]] = ()
    """(name, value) shown below."""
    tone: str = ""
    """A policy's key, for the colour of its edge."""


@dataclass(frozen=True)
class Exchange:
    """A prompt and the answers of several policies."""

    prompt: str
    answers: Sequence[Answer]
    label: str = ""
    kind: ClassVar[str] = "exchange"


@dataclass(frozen=True)
class Verbatim:
    """Preformatted text."""

    text: str
    kind: ClassVar[str] = "verbatim"


@dataclass(frozen=True)
class Fold:
    """Blocks behind a line that opens them."""

    summary: str
    blocks: Sequence[Block]
    kind: ClassVar[str] = "fold"


Block = Prose | Points | Terms | Table | Plot | Plots | Exchange | Verbatim | Fold


@dataclass(frozen=True)
class PageSection:
    """A heading and what stands under it. `anchor` is unique on the page: letters, digits, hyphens."""

    title: str
    anchor: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def render_page(sections: Sequence[PageSection], *, title: str, subtitle: str = "") -> str:
    """The whole page as one string: style, plotly.js, figures and text inlined, no request to anywhere."""
    anchors = [section.anchor for section in sections]
    assert len(set(anchors)) == len(anchors), anchors
    plotly, script = plotly_js(), (TEMPLATES / "page.js").read_text(encoding="utf-8")
    style = "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "blocks.css"))
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            subtitle=subtitle,
            sections=sections,
            style=Markup(style),
            plotly=Markup(plotly),
            script=Markup(script),
            script_hashes=[_content_hash(plotly), _content_hash(script)],
        )
    )


def embed_json(value: Any) -> Markup:
    """JSON that can stand inside a script element: no `<`, `>` or `&` survives, numbers that JSON lacks become null."""
    text = json.dumps(_finite(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


@functools.cache
def plotly_js() -> str:
    """The plotly.js that the installed plotly package carries; found without importing the package, which is slow."""
    spec = importlib.util.find_spec("plotly")
    assert spec is not None and spec.origin is not None, "plotly is a dependency of prefloop"
    source = (Path(spec.origin).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    # Either would end or garble an inline script; string literals are the only place where they could stand.
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embed_json"] = embed_json
    return environment


def _content_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

"""Templates and static files, all read from the package; no route turns a request's text into a path."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prefloop.app.access import ACCESS, ANYONE
from prefloop.app.boards import BOARDS, is_offered
from prefloop.app.markdown import as_html
from prefloop.app.station import station_of
from prefloop.label.records import Person
from prefloop.report.page import TEMPLATES as REPORT
from prefloop.report.page import embed_json, plotly_js

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
LINKS = (
    ("/", "Label"),
    ("/guidelines", "Guidelines"),
    ("/people", "People"),
    ("/quality", "Quality"),
    ("/disagreements", "Disagreements"),
    ("/log", "Log"),
    *((path, board.title) for path, board in BOARDS.items()),
)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page, with links to what the person may see."""
    person: Person | None = getattr(request.state, "person", None)
    config = station_of(request).config
    seen = (link for link in LINKS if person is not None and _may_see(person, link[0]))
    links = [link for link in seen if is_offered(config, link[0])]
    here = "/" + request.url.path.split("/")[1]
    html = fragment(template, person=person, links=links, here=here, **values)
    return HTMLResponse(html, status_code=status)


def fragment(template: str, **values: Any) -> str:
    """A template as text; all values are escaped."""
    return _environment().get_template(template).render(values)


@functools.cache
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """Name -> content and media type; with what draws figures, as reports have it inside them."""
    files = {path.name: path for path in STATIC.iterdir() if path.suffix in TYPES}
    files |= {"blocks.css": REPORT / "blocks.css", "figures.js": REPORT / "page.js"}
    content = {name: (path.read_bytes(), TYPES[path.suffix]) for name, path in files.items()}
    return {**content, "plotly.js": (plotly_js().encode(), TYPES[".js"])}


@functools.cache
def etags() -> Mapping[str, str]:
    """Name -> what stands for the content, so that a browser need not load 5 MB again with each page."""
    return {name: f'"{hashlib.sha256(content).hexdigest()[:32]}"' for name, (content, _) in static_files().items()}


def _may_see(person: Person, path: str) -> bool:
    roles = ACCESS["GET", path]
    return roles is ANYONE or person.role in roles


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader([TEMPLATES, REPORT]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = as_html
    environment.filters["embed_json"] = embed_json
    return environment

"""Templates and static files, all read from the package; no route turns a request's text into a path."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from prefloop.app.access import ACCESS, ANYONE
from prefloop.app.markdown import as_html
from prefloop.label.records import Person

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
)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page, with links to what the person may see."""
    person: Person | None = getattr(request.state, "person", None)
    links = [] if person is None else [link for link in LINKS if _may_see(person, link[0])]
    here = "/" + request.url.path.split("/")[1]
    html = fragment(template, person=person, links=links, here=here, **values)
    return HTMLResponse(html, status_code=status)


def fragment(template: str, **values: Any) -> str:
    """A template as text; all values are escaped."""
    return _environment().get_template(template).render(values)


@functools.cache
def static_files() -> Mapping[str, tuple[bytes, str]]:
    """Name -> content and media type."""
    files = (path for path in STATIC.iterdir() if path.suffix in TYPES)
    return {path.name: (path.read_bytes(), TYPES[path.suffix]) for path in files}


def _may_see(person: Person, path: str) -> bool:
    roles = ACCESS["GET", path]
    return roles is ANYONE or person.role in roles


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = as_html
    return environment

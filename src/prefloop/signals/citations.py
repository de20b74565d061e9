"""Which sources a text names, so that they can be looked up in a list of those that exist."""

from __future__ import annotations

import re

_LINK = re.compile(r"https?://[^\s)\]>\"']+|www\.[^\s)\]>\"']+")
_NAME = r"[A-Z][\w'-]+"
_NAMES = rf"{_NAME}(?:(?:,| and|, and| &) {_NAME})*(?:,? et al\.?)?"
_NAMED = (
    re.compile(rf"(?:\(|; )({_NAMES}),? ((?:19|20)\d\d)(?=[a-z]?[;)])"),  # (Miller, 2019; Rao & Li 2020)
    re.compile(rf"({_NAMES}) \(((?:19|20)\d\d)[a-z]?\)"),  # Miller and Rao (2019)
)
_PAGE = re.compile(r"\b(?:pages?|pp?\.) ?(\d+)", re.IGNORECASE)
_FILLER = re.compile(r"\b(?:and|et al)\b|[,&.]")


def cited(text: str) -> frozenset[str]:
    """The sources that a text names, in one form each: a link without its scheme and final marks, "miller 2019" for
    (Miller, 2019) and Miller (2019), "page 12" for a page."""
    links = {normal_source(link) for link in _LINK.findall(text)}
    rest = _LINK.sub(" ", text)
    named = {normal_source(f"{names} {year}") for form in _NAMED for names, year in form.findall(rest)}
    return frozenset(links | named | {f"page {number}" for number in _PAGE.findall(text)})


def normal_source(source: str) -> str:
    """A source as `cited` writes it, so that a line of a list can be compared."""
    source = re.sub(r"^(?:https?://)?(?:www\.)?", "", source.strip()).rstrip(".,;:!?/")
    if "/" in source or re.fullmatch(r"[\w-]+(?:\.[\w-]+)+", source):
        return source.lower()
    if page := _PAGE.fullmatch(source):
        return f"page {page.group(1)}"
    return " ".join(_FILLER.sub(" ", source.replace("(", " ").replace(")", " ")).lower().split())

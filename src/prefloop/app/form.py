"""A posted HTML form as text fields."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, HTTPException, Request

MAX_FIELDS = 10


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name. Raises HTTPException 415 or 422 for what is none, or holds a NUL
    byte, which PostgreSQL cannot store."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send a form (application/x-www-form-urlencoded)")
    body = await request.body()
    try:
        text = body.decode("ascii")
        fields = dict(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise HTTPException(422, "this is no form that can be read") from error
    if any("\0" in name + value for name, value in fields.items()):
        raise HTTPException(422, "a field holds a NUL byte")
    return fields


Form = Annotated[dict[str, str], Depends(form_of)]
"""What a route that takes a form is given."""


def number_of(form: dict[str, str], field: str) -> int | None:
    """A number that the page put into its form; None where it is empty. Raises HTTPException 422 for anything else."""
    text = form.get(field, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise HTTPException(422, f"{field}: send the form of the page")
    return int(text) if text else None

"""The app as a whole: routes, what an error looks like, and what stands before all of it."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from prefloop.app import (
    audit_routes,
    disagreement_routes,
    enter_routes,
    gate_routes,
    label_routes,
    ledger_routes,
    people_routes,
    quality_routes,
    run_routes,
)
from prefloop.app.access import SignedOut, admit
from prefloop.app.config import LabelServeConfig
from prefloop.app.fence import Fence
from prefloop.app.pages import page
from prefloop.app.rate import Rate
from prefloop.app.station import Station
from prefloop.label.store import Store
from prefloop.reward.guard import App, Guard
from prefloop.types import EnvironmentStop, InputError, Refusal

ROUTES = (
    *(enter_routes, label_routes, people_routes, quality_routes, disagreement_routes),
    *(run_routes, audit_routes, gate_routes, ledger_routes),
)


def make_app(store: Store, config: LabelServeConfig, *, url: str, port: int, hosts: frozenset[str]) -> App:
    """The app as an ASGI application, for people who reach it under the origin `url`."""
    api = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(admit)])
    is_secure = url.startswith("https://")
    api.state.station = Station(
        store,
        config,
        url,
        # Cookies know no ports: two apps on one machine must not take each other's.
        cookie="__Host-prefloop" if is_secure else f"prefloop-{port}",
        requests=Rate(config.requests_per_minute),
        sign_ins=Rate(config.sign_ins_per_minute),
    )
    for routes in ROUTES:
        api.include_router(routes.router)
    api.add_exception_handler(SignedOut, _signed_out)
    api.add_exception_handler(HTTPException, _refused)
    api.add_exception_handler(RequestValidationError, _malformed)
    api.add_exception_handler(InputError, _wrong)
    api.add_exception_handler(Refusal, _forbidden)
    api.add_exception_handler(EnvironmentStop, _stopped)
    api.add_exception_handler(OSError, _stopped)
    guard = Guard(api, hosts=hosts, token=None, max_body_bytes=config.max_body_bytes)
    return Fence(guard, origins=_origins(url, port, hosts), is_secure=is_secure)


def _origins(url: str, port: int, hosts: frozenset[str]) -> frozenset[str]:
    """What a browser can call a page of the app: on this machine, by each of its names."""
    if url.startswith("https://"):
        return frozenset({url})
    return frozenset(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in hosts)


def _told(request: Request, status: int, detail: str, headers: Any = None) -> Response:
    """An error as a page for a person, as JSON for a script."""
    if "text/html" in request.headers.get("accept", ""):
        answer: Response = page(request, "problem.html", status=status, detail=detail)
        answer.headers.update(headers or {})
        return answer
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _signed_out(request: Request, error: Exception) -> Response:
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("/enter", status_code=303)
    return JSONResponse({"detail": "you are signed out; sign in again"}, status_code=401)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _told(request, error.status_code, str(error.detail), error.headers)


def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Without the input itself: it may be what no answer can hold.
    first = error.errors()[0]
    place = ".".join(ascii(part).strip("'") for part in first["loc"] if part != "body")
    return _told(request, 422, f"{place}: {first['msg']}" if place else first["msg"])


def _wrong(request: Request, error: Exception) -> Response:
    return _told(request, 422, str(error).encode("utf-8", "backslashreplace").decode("utf-8"))


def _forbidden(request: Request, error: Exception) -> Response:
    return _told(request, 409, str(error).encode("utf-8", "backslashreplace").decode("utf-8"))


def _stopped(request: Request, error: Exception) -> Response:
    return _told(request, 503, f"nothing was saved: {error}")

"""The command `reward serve`: a scorer behind OpenRLHF's protocol over HTTP.

    POST /get_reward   {"query": [...], "prompts": [...], "labels": [...]} -> {"rewards": [...], "scores": [...]}
    GET  /health       {"status": "ok", "reward_version": "..."}

`messages`, `responses` and `finished`, which prefloop's own client sends beside these, are taken instead of cutting the
prompt off the query. One request is scored at a time. For browsers there is nothing here: no CORS.
"""

from __future__ import annotations

import threading
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from prefloop.console import say
from prefloop.data.dialogue import prompt_id_of, prompt_messages, require_prompt
from prefloop.models.load import default_device
from prefloop.reward.address import allowed_hosts, is_loopback, listen, not_installed, server_of
from prefloop.reward.client import token_from
from prefloop.reward.config import RewardServeConfig
from prefloop.reward.guard import App, Guard
from prefloop.reward.scorer import Response, Scorer
from prefloop.reward.scoring import load_scorer
from prefloop.types import EnvironmentStop, InputError, Message, Messages, Prompt

PATH = "/get_reward"


class Turn(BaseModel):
    """One message of a dialogue in a request."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class ScoreRequest(BaseModel):
    """The body of a request; lists have one element for each response. Keys that it does not have are ignored."""

    model_config = ConfigDict(strict=True)

    query: list[str]
    prompts: list[str]
    labels: list[Any] | None = None
    messages: list[list[Turn]] | None = None
    responses: list[str] | None = None
    finished: list[bool] | None = None


def rows_of(request: ScoreRequest) -> tuple[list[Prompt], list[Response]]:
    """Prompts and responses of a request. Raises InputError naming the list and row that is wrong."""
    number = len(request.query)
    for name, values in request:
        if values is not None and len(values) != number:
            raise InputError(f"has {len(values)} elements, and query has {number}", field=name)
    prompts, responses = [], []
    for index in range(number):
        messages = _messages(request, index)
        columns = {} if request.labels is None else {"label": request.labels[index]}
        prompts.append(Prompt(prompt_id_of(messages), messages, columns=columns))
        finished = True if request.finished is None else request.finished[index]
        responses.append(Response(_response(request, index), finished))
    return prompts, responses


def _messages(request: ScoreRequest, index: int) -> Messages:
    if request.messages is None:
        return prompt_messages(request.prompts[index], f"prompts[{index}]")
    turns = tuple(Message(turn.role, turn.content) for turn in request.messages[index])
    require_prompt(turns, f"messages[{index}]")
    return turns


def _response(request: ScoreRequest, index: int) -> str:
    if request.responses is not None:
        return request.responses[index]
    query, prompt = request.query[index], request.prompts[index]
    if not query.startswith(prompt):
        raise InputError("does not start with its prompt", field=f"query[{index}]", remedy="send prompt + response")
    # A sampler's responses have no white space around them either.
    return query[len(prompt) :].strip()


def make_app(
    scorer: Scorer, *, hosts: frozenset[str] | None, token: str | None, max_body_bytes: int, max_batch: int
) -> App:
    """The server as an ASGI application. Raises InputError where FastAPI is not installed."""
    try:
        from fastapi import FastAPI, HTTPException
        from fastapi.exceptions import RequestValidationError
        from fastapi.responses import JSONResponse
    except ImportError as error:
        raise not_installed(error) from error
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    lock = threading.Lock()

    @app.exception_handler(RequestValidationError)
    def malformed(_: Any, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return JSONResponse({"detail": f"{place}: {first['msg']}" if place else first["msg"]}, status_code=422)

    @app.get("/health", response_model=None)
    def health() -> dict[str, Any]:
        return {"status": "ok", "reward_version": scorer.version}

    # No coroutine: it runs on a thread, so that /health answers meanwhile.
    @app.post(PATH, response_model=None)
    def get_reward(body: ScoreRequest) -> dict[str, Any]:
        if len(body.query) > max_batch:
            raise HTTPException(413, f"a request holds at most {max_batch} responses, not {len(body.query)}")
        try:
            prompts, responses = rows_of(body)
            with lock:
                scores, spread = scorer.score_with_spread(prompts, responses) if prompts else ([], None)
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        except EnvironmentStop as error:
            raise HTTPException(503, str(error)) from error
        answer = {"rewards": scores, "scores": scores, "reward_version": scorer.version}
        return answer if spread is None else {**answer, "score_spread": spread}

    return Guard(app, hosts=hosts, token=token, max_body_bytes=max_body_bytes)


def serve(config: RewardServeConfig) -> dict[str, Any]:
    """Serve until interrupted. Raises InputError for an address that others can reach without a token."""
    token = token_from(config.token_env, field="token_env")
    if token is None and not is_loopback(config.host):
        raise InputError(
            f"others can reach {config.host}, and there is no token",
            field="host",
            remedy="give --token-env NAME of a variable that holds one, or --host 127.0.0.1",
        )
    with listen(config.host, config.port) as listening:
        scorer = load_scorer(
            config.model, device=default_device(), token_budget=config.token_budget, settings=config.scoring
        )
        app = make_app(
            scorer,
            hosts=allowed_hosts(config.host),
            token=token,
            max_body_bytes=config.max_body_bytes,
            max_batch=config.max_batch,
        )
        server = server_of(app)
        name = f"[{config.host}]" if ":" in config.host else config.host
        url = f"http://{name}:{listening.getsockname()[1]}{PATH}"
        say(f"reward server: {url} (version {scorer.version}); Ctrl-C ends it")
        server.run(sockets=[listening])
    return {"url": url, "reward_version": scorer.version}

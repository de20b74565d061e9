"""One request over HTTP at a time, repeated while a server is away, too slow or failing."""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from prefloop.reward.address import is_loopback
from prefloop.types import EnvironmentStop, InputError


@dataclass(frozen=True)
class Retries:
    """How long a server is waited for, and how often it is asked again."""

    timeout_seconds: float
    retries: int
    retry_seconds: float
    """Before the first repetition; it doubles each time."""


class Client:
    """Asks one server. `what` names it in messages, for example "reward server"."""

    def __init__(self, what: str, url: str, patience: Retries, *, token: str | None, field: str, remedy: str) -> None:
        """Raises InputError for what is no address; `remedy` says what would be one."""
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise InputError(f"is no address: {error}", path=url, field=field) from error
        if not parsed.host or parsed.userinfo:
            problem = "holds a user or password" if parsed.userinfo else "has no host"
            raise InputError(f"the address {problem}", field=field, remedy=remedy)
        self.what, self.url, self.patience = what, url, patience
        self.parsed = parsed
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # A proxy of the environment cannot reach this machine's own servers.
        self._trust_env = not is_loopback(parsed.host)
        # Reading the certificates takes longer than most requests.
        self._verify = ssl.create_default_context() if parsed.scheme == "https" else False

    def send(self, method: str, url: str, body: bytes | None = None) -> httpx2.Response:
        """The server's answer. Raises EnvironmentStop where it stays away, is too slow, or fails, after all retries."""
        patience, failure = self.patience, ""
        headers = {**self._headers, "Content-Type": "application/json"}
        with httpx2.Client(timeout=patience.timeout_seconds, trust_env=self._trust_env, verify=self._verify) as client:
            for attempt in range(patience.retries + 1):
                if attempt:
                    time.sleep(patience.retry_seconds * 2 ** (attempt - 1))
                try:
                    response = client.request(method, url, content=body, headers=headers)
                except httpx2.TimeoutException:
                    failure = f"no answer within {patience.timeout_seconds:g} s"
                except httpx2.RequestError as error:
                    failure = str(error) or type(error).__name__
                else:
                    if response.status_code != 429 and response.status_code < 500:
                        return response
                    failure = f"status {response.status_code} {first_line(response)}".rstrip()
        raise EnvironmentStop(f"{self.what} {self.url}: {failure} (tried {patience.retries + 1} times)")


def token_from(variable: str | None, *, field: str) -> str | None:
    """The bearer token in an environment variable. Raises InputError if it is named but empty."""
    if variable is None:
        return None
    token = os.environ.get(variable, "").strip()
    if not token:
        raise InputError(
            f"the environment variable {variable} is not set", field=field, remedy=f"export {variable}=..."
        )
    return token


def parsed(response: httpx2.Response) -> Any:
    """The JSON of an answer, or None where it is no JSON."""
    try:
        return response.json()
    except ValueError:
        return None


def first_line(response: httpx2.Response) -> str:
    """The first line of an answer's text, or of its `detail` where it is JSON that has one."""
    value = parsed(response)
    text = str(value["detail"]) if isinstance(value, dict) and "detail" in value else response.text
    return next(iter(text.strip().splitlines()), "")[:200]

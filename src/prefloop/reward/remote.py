"""A reward server as a scorer: OpenRLHF's protocol over HTTP, as a client.

One POST has the lists `query` (prompt + response), `prompts` and `labels`; the answer has `rewards`, one number each.
Beside these the lists `messages`, `responses` and `finished` go along, so that a server of prefloop has no text to cut
apart; other servers ignore them. Servers of prefloop also tell their model's version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from prefloop.console import say
from prefloop.reward.client import Client, Retries, first_line, parsed, token_from
from prefloop.reward.config import ScoringConfig
from prefloop.reward.scorer import Response, finite_scores
from prefloop.types import InputError, Prompt

ROWS_PER_REQUEST = 256
"""More responses go in several requests, to stay below what servers take at once."""


def is_server(spec: str) -> bool:
    """Whether `spec` is the address of a reward server."""
    return spec.startswith(("http://", "https://"))


def prompt_text(prompt: Prompt) -> str:
    """A prompt as text: the one user turn as it stands, or else the turns with `Human:` and `Assistant:` before them.

    Every form ends where the response begins, so that text + response is the query.
    """
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    speakers = {"user": "\n\nHuman: ", "assistant": "\n\nAssistant: ", "system": ""}
    return "".join(speakers[turn.role] + turn.content for turn in prompt.messages) + "\n\nAssistant: "


class RemoteScorer:
    """A reward server. Scores are what the server answers: it normalises, or not."""

    def __init__(self, url: str, settings: ScoringConfig) -> None:
        self.url, self.settings = url, settings
        self.client = Client(
            "reward server",
            url,
            Retries(settings.timeout_seconds, settings.retries, settings.retry_seconds),
            token=token_from(settings.server_token_env, field="server_token_env"),
            field="reward",
            remedy="give http://host:port/path; a token goes into the variable that server_token_env names",
        )
        self.version = self._version(str(self.client.parsed.copy_with(path="/health", query=None)))

    def _version(self, health: str) -> str:
        """The version that the server tells, or a hash of its address if it tells none."""
        response = self.client.send("GET", health)
        if response.status_code in (401, 403):
            raise self._refused(response)
        answer = parsed(response) if response.is_success else None
        told = answer.get("reward_version") if isinstance(answer, dict) else None
        if isinstance(told, str) and told:
            return told
        say(f"reward server {self.url} does not tell its version: rollouts are marked with a hash of the address")
        return hashlib.sha256(self.url.encode()).hexdigest()[:12]

    def _request(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Mapping[str, Any]:
        template = self.settings.server_prompt_template
        texts = [template.replace("{}", prompt_text(prompt)) for prompt in prompts]
        payload = {
            "query": [text + response.text for text, response in zip(texts, responses, strict=True)],
            "prompts": texts,
            # OpenRLHF sends an empty text where a data set has no labels.
            "labels": [prompt.columns.get("label", "") for prompt in prompts],
            "messages": [[{"role": turn.role, "content": turn.content} for turn in each.messages] for each in prompts],
            "responses": [response.text for response in responses],
            "finished": [response.finished for response in responses],
        }
        # Columns of Parquet files hold dates and the like, which JSON does not know.
        response = self.client.send("POST", self.url, json.dumps(payload, default=str).encode())
        if not response.is_success:
            raise self._refused(response)
        answer = parsed(response)
        if not isinstance(answer, dict) or "rewards" not in answer:
            held = f"only {', '.join(answer) or 'nothing'}" if isinstance(answer, dict) else repr(first_line(response))
            problem = f"the reward server's answer is no JSON object with a list `rewards`, but has {held}"
            raise InputError(problem, path=self.url, field="reward")
        if answer.get("reward_version", self.version) != self.version:
            now = answer["reward_version"]
            problem = f"the reward server now serves another model ({self.version} before, {now} now)"
            raise InputError(problem, path=self.url, field="reward", remedy="serve the former model again")
        return answer

    def _refused(self, response: httpx2.Response) -> InputError:
        problem = f"the reward server refused with status {response.status_code}: {first_line(response)}"
        return InputError(problem, path=self.url, field="reward")

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[float]:
        """Scores of the server. Raises InputError for a malformed answer, EnvironmentStop where it stays away."""
        return self.score_with_spread(prompts, responses)[0]

    def score_with_spread(
        self, prompts: Sequence[Prompt], responses: Sequence[Response]
    ) -> tuple[list[float], list[float] | None]:
        """Scores, and the spread if the server is one of prefloop that serves an ensemble."""
        scores: list[float] = []
        spreads: list[float] | None = []
        for start in range(0, len(prompts), ROWS_PER_REQUEST):
            asked = prompts[start : start + ROWS_PER_REQUEST]
            answer = self._request(asked, responses[start : start + ROWS_PER_REQUEST])
            remedy = "the server must answer one finite number for each query"
            scores += finite_scores(answer["rewards"], asked, path=self.url, remedy=remedy)
            spread = answer.get("score_spread")
            if spread is None or spreads is None:
                spreads = None
            else:
                spreads += finite_scores(spread, asked, path=self.url, remedy=remedy, what="spreads")
        return scores, spreads

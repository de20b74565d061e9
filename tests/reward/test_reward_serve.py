"""Our reward server: what it answers to our client and to OpenRLHF, and whom it refuses."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import httpx2
import pytest
import torch

from prefloop.reward.config import RewardServeConfig, ScoringConfig
from prefloop.reward.guard import Guard
from prefloop.reward.remote import RemoteScorer
from prefloop.reward.scoring import Response, load_scorer
from prefloop.reward.serve import allowed_hosts, listen, make_app, serve, server_of
from prefloop.types import EnvironmentStop, InputError, Message, Prompt

QUICK = ScoringConfig(retries=0)


class Echo:
    """Scores a response by its length, negative where it was cut off, and remembers what it was asked."""

    version = "echo-1"

    def __init__(self, spread=None, error=None):
        self.asked, self.spread, self.error = [], spread, error
        self.busy, self.most_busy, self.gate = 0, 0, threading.Semaphore(10**6)

    def score_with_spread(self, prompts, responses):
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        self.gate.acquire(timeout=10)
        self.busy -= 1
        if self.error is not None:
            raise self.error
        self.asked += list(zip(prompts, responses, strict=True))
        scores = [float(len(each.text)) * (1 if each.finished else -1) for each in responses]
        return scores, None if self.spread is None else [self.spread] * len(scores)


def post(url, body, **headers):
    return httpx2.post(url, json=body, headers=headers, trust_env=False)


def test_our_client_gets_what_the_model_says(served, reward_run):
    local = load_scorer(str(reward_run.run), device=torch.device("cpu"))
    remote = RemoteScorer(served(local), QUICK)
    dialogue = (Message("system", "s"), Message("user", "name a tree"), Message("assistant", "bee"))
    prompts = [
        Prompt("p", (Message("user", "Human: name things \n"),)),
        Prompt("q", (*dialogue, Message("user", "name a moon\n\nHuman: x"))),
    ]
    responses = [Response(" bee cheese"), Response("moon fog", finished=False)]
    assert remote.version == local.version
    assert remote.score(prompts, responses) == local.score(prompts, responses)
    assert remote.score_with_spread(prompts * 150, responses * 150)[1] is None


def test_an_ensembles_spread_comes_over(served):
    remote = RemoteScorer(served(Echo(spread=0.25)), QUICK)
    prompts = [Prompt("p", (Message("user", "a"),))] * 300
    assert remote.score_with_spread(prompts, [Response("abc")] * 300) == ([3.0] * 300, [0.25] * 300)


def test_a_plain_request_of_openrlhf(served):
    echo = Echo()
    body = {
        "query": ["Name a tree. An oak. ", "Human: Hi\nAssistant: Hello\nHuman: A moon?\nAssistant: Io"],
        "prompts": ["Name a tree. ", "Human: Hi\nAssistant: Hello\nHuman: A moon?\nAssistant:"],
        "labels": ["oak", ""],
    }
    response = post(served(echo), body)
    assert response.status_code == 200
    assert response.json() == {"rewards": [7.0, 2.0], "scores": [7.0, 2.0], "reward_version": "echo-1"}
    (first, oak), (second, moon) = echo.asked
    assert (oak, moon) == (Response("An oak."), Response("Io"))
    assert first.messages == (Message("user", "Name a tree. "),)
    assert second.messages == (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "A moon?"))
    assert [first.columns, second.columns] == [{"label": "oak"}, {"label": ""}]


def test_a_function_gets_the_labels(served, tmp_path):
    (tmp_path / "rewards.py").write_text(
        "def right(prompts, responses, label):\n"
        "    return [float(word in text) for word, text in zip(label, responses)]\n"
    )
    scorer = load_scorer(f"{tmp_path / 'rewards.py'}:right", device=torch.device("cpu"))
    url = served(scorer)
    prompts = [Prompt(word, (Message("user", "?"),), columns={"label": word}) for word in ("oak", "elm")]
    assert RemoteScorer(url, QUICK).score(prompts, [Response("an oak")] * 2) == [1.0, 0.0]
    without = post(url, {"query": ["?a"], "prompts": ["?"]})
    assert without.status_code == 422 and "missing 1 required positional argument: 'label'" in without.json()["detail"]


def test_an_empty_request_has_an_empty_answer(served):
    assert post(served(Echo()), {"query": [], "prompts": []}).json()["rewards"] == []


ROW = {"query": ["ab"], "prompts": ["a"]}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"query": ["ab"]}, 422, "prompts: Field required"),
        ({"query": "ab", "prompts": ["a"]}, 422, "query: Input should be a valid list"),
        ({"query": ["ab", 3], "prompts": ["a", "b"]}, 422, "query.1: Input should be a valid string"),
        ([1], 422, "Input should be a valid dictionary or object to extract fields from"),
        ({"query": ["ab"], "prompts": ["b"]}, 422, "query[0]: does not start with its prompt; send prompt + response"),
        ({"query": ["ab", "a"], "prompts": ["a"]}, 422, "prompts: has 1 elements, and query has 2"),
        ({**ROW, "labels": []}, 422, "labels: has 0 elements, and query has 1"),
        ({**ROW, "finished": ["yes"]}, 422, "finished.0: Input should be a valid boolean"),
        ({**ROW, "prompts": [" "], "query": [" b"]}, 422, "prompts[0]: the last user turn is empty"),
        ({**ROW, "messages": [[]]}, 422, "messages[0]: has no user turn; a prompt ends with a user turn"),
        ({"query": ["ab"] * 4, "prompts": ["a"] * 4}, 413, "a request holds at most 3 responses, not 4"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(served, body, status, detail):
    response = post(served(Echo(), max_batch=3), body)
    assert (response.status_code, response.json()) == (status, {"detail": detail})


def test_what_is_no_json_is_refused(served):
    response = httpx2.post(served(Echo()), content=b"{", headers={"Content-Type": "application/json"}, trust_env=False)
    assert response.status_code == 422 and "JSON decode error" in response.json()["detail"]


def test_failures_behind_the_server_reach_the_client_as_what_they_are(served):
    prompts, responses = [Prompt("p", (Message("user", "a"),))], [Response("b")]
    refused = RemoteScorer(served(Echo(error=InputError("a model of nonsense"))), QUICK)
    with pytest.raises(InputError, match="refused with status 422: a model of nonsense"):
        refused.score(prompts, responses)
    stopped = RemoteScorer(served(Echo(error=EnvironmentStop("the disk is full"))), QUICK)
    with pytest.raises(EnvironmentStop, match="status 503 the disk is full"):
        stopped.score(prompts, responses)


def test_one_request_is_scored_at_a_time_and_health_answers_meanwhile(served):
    echo = Echo()
    echo.gate = threading.Semaphore(0)
    url = served(echo)
    threads = [threading.Thread(target=post, args=(url, ROW)) for _ in range(3)]
    for thread in threads:
        thread.start()
    health = httpx2.get(url.replace("/get_reward", "/health"), trust_env=False)
    assert health.json() == {"status": "ok", "reward_version": "echo-1"}
    for _ in threads:
        echo.gate.release()
    for thread in threads:
        thread.join()
    assert (len(echo.asked), echo.most_busy) == (3, 1)


# Who is let in


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", "Bearer s3cre", "Basic s3cret", "bearer s3cret\u00e9"])
def test_without_the_token_nobody_is_answered(served, given):
    url = served(Echo(), token="s3cret")
    for path in ("/get_reward", "/health", "/"):
        headers = {"Authorization": given.encode()} if given else {}
        response = httpx2.get(url.replace("/get_reward", path), headers=headers, trust_env=False)
        assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"


def test_with_the_token_one_is_answered(served, monkeypatch):
    url = served(Echo(), token="s3cret")
    assert post(url, ROW, Authorization="Bearer s3cret").json()["rewards"] == [1.0]
    monkeypatch.setenv("TOKEN", "s3cret\n")
    scorer = RemoteScorer(url, ScoringConfig(server_token_env="TOKEN"))
    assert scorer.score([Prompt("p", (Message("user", "a"),))], [Response("bcd")]) == [3.0]
    with pytest.raises(InputError, match="refused with status 401: give the server's token"):
        RemoteScorer(url, QUICK)


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8900", "127.0.0.1.evil.example", "[::1", ""])
def test_another_host_name_is_refused(served, name):
    response = post(served(Echo()), ROW, Host=name)
    assert response.status_code in (400, 421)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "127.0.0.1:8900", "[::1]:8900"])
def test_the_names_of_this_machine_are_let_in(served, name):
    assert post(served(Echo()), ROW, Host=name).status_code == 200


def test_pages_of_other_origins_get_no_leave(served):
    url = served(Echo())
    response = post(url, ROW, Origin="https://evil.example")
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert httpx2.options(url, headers={"Origin": "https://evil.example"}, trust_env=False).status_code == 405
    assert httpx2.get(url.replace("/get_reward", "/docs"), trust_env=False).status_code == 404


def chunked(url, chunks):
    """Post a body without a Content-Length."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    connection.request(
        "POST", "/get_reward", body=iter(chunks), headers={"Content-Type": "application/json"}, encode_chunked=True
    )
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_a_body_is_limited_with_and_without_its_length(served):
    url = served(Echo(), max_body_bytes=100)
    short = json.dumps(ROW).encode()
    long = json.dumps({**ROW, "note": "x" * 100}).encode()
    assert post(url, ROW).status_code == 200
    assert chunked(url, [short[:5], short[5:]])[0] == 200
    refusal = {"detail": "a request holds at most 100 bytes; send fewer responses at once"}
    announced = post(url, {**ROW, "note": "x" * 100})
    assert (announced.status_code, announced.json()) == (413, refusal)
    assert chunked(url, [long[:60], long[60:]]) == (413, refusal)


def test_the_guard_reads_no_further_than_the_limit():
    """As ASGI: an endless body is refused after the first byte too many, and one who leaves is not answered."""
    sent, events = [], []

    async def app(scope, receive, send):
        events.append(await receive())

    async def run(messages):
        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        guard = Guard(app, hosts=None, token=None, max_body_bytes=5)
        await guard({"type": "http", "headers": []}, receive, send)

    endless = [{"type": "http.request", "body": b"xx", "more_body": True} for _ in range(100)]
    asyncio.run(run(endless))
    assert len(endless) == 97 and sent[0]["status"] == 413 and events == []
    asyncio.run(run([{"type": "http.request", "body": b"xx", "more_body": True}, {"type": "http.disconnect"}]))
    assert len(sent) == 2 and events == []
    asyncio.run(run([{"type": "http.request", "body": b"xx", "more_body": True}, {"type": "http.request"}]))
    assert events == [{"type": "http.request", "body": b"xx", "more_body": False}]


# The command


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "gpu-3"])
def test_others_are_not_served_without_a_token(prefloop, host):
    refused = prefloop("reward serve", "rewards.py:f", "--host", host)
    assert refused.problem == (
        f"host: others can reach {host}, and there is no token; "
        "give --token-env NAME of a variable that holds one, or --host 127.0.0.1"
    )


def test_a_named_token_must_exist(prefloop, monkeypatch):
    monkeypatch.delenv("NO_SUCH_TOKEN", raising=False)
    refused = prefloop("reward serve", "rewards.py:f", "--token-env", "NO_SUCH_TOKEN")
    assert refused.problem.startswith("token_env: the environment variable NO_SUCH_TOKEN is not set")


def test_names_that_a_server_answers_to():
    assert allowed_hosts("127.0.0.1") == {"127.0.0.1", "localhost", "::1"}
    assert allowed_hosts("127.0.0.9") == {"127.0.0.1", "127.0.0.9", "localhost", "::1"}
    assert allowed_hosts("GPU-3") == {"gpu-3"}
    assert allowed_hosts("0.0.0.0") is None and allowed_hosts("::") is None


def test_a_port_that_is_taken(prefloop):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = prefloop("reward serve", "rewards.py:f", "--port", port)
        assert refused.problem.startswith(f"port: cannot listen on 127.0.0.1 port {port} (")
    with pytest.raises(InputError, match=r"cannot listen on no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0)


def test_a_missing_package_is_named(monkeypatch):
    limits = {"hosts": None, "token": None, "max_body_bytes": 1, "max_batch": 1}
    for package in ("fastapi", "uvicorn"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"serving needs the package fastapi; pip install 'prefloop\[app\]'"):
        make_app(Echo(), **limits)
    with pytest.raises(InputError, match=r"serving needs the package uvicorn; pip install 'prefloop\[app\]'"):
        server_of(None)


def test_the_command_serves_until_interrupted(tmp_path):
    (tmp_path / "rewards.py").write_text("def f(prompts, responses):\n    return [len(text) for text in responses]\n")
    words = [sys.executable, "-m", "prefloop", "reward", "serve", "rewards.py:f", "--port", "0"]
    server = subprocess.Popen(words, cwd=tmp_path, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert server.stderr is not None
        line = server.stderr.readline().decode()
        assert line.startswith("reward server: http://127.0.0.1:"), line
        scorer = RemoteScorer(line.split()[2], QUICK)
        assert scorer.score([Prompt("p", (Message("user", "a"),))], [Response("bcd")]) == [3.0]
        assert f"version {scorer.version}" in line
        server.send_signal(signal.SIGINT)
        out, said = server.communicate(timeout=60)
    finally:
        server.kill()
        server.wait()
    assert (server.returncode, out) == (130, b"")
    assert said.decode().strip() == "interrupted; run the same command again to go on"


def test_a_server_that_ends_by_itself_answers_where_it_was(monkeypatch, tmp_path):
    class Over:
        def run(self, sockets):
            assert sockets[0].getsockname()[0] == "127.0.0.1"

    (tmp_path / "rewards.py").write_text("def f(prompts, responses):\n    return [0.0] * len(prompts)\n")
    monkeypatch.setattr("prefloop.reward.serve.server_of", lambda app: Over())
    monkeypatch.setenv("TOKEN", "t")
    config = RewardServeConfig(model=(f"{tmp_path / 'rewards.py'}:f",), port=0, token_env="TOKEN")
    answer = serve(config)
    assert urlsplit(answer["url"]).path == "/get_reward" and len(answer["reward_version"]) == 12

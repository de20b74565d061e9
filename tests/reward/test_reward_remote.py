"""The client of reward servers: what it sends, what it takes, when it tries again."""

from __future__ import annotations

import datetime
import json
import math
import socket

import pytest
import torch

from prefloop.reward.config import ScoringConfig
from prefloop.reward.remote import RemoteScorer, prompt_text
from prefloop.reward.scoring import Response, first_reward_model, load_scorer, reward_inputs
from prefloop.types import EnvironmentStop, InputError, Message, Prompt

QUICK = ScoringConfig(retries=3, retry_seconds=0.001, timeout_seconds=5.0)
PROMPTS = [
    Prompt("p", (Message("user", "Name a tree. "),), columns={"label": "oak", "words": 3}),
    Prompt("q", (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "A moon?"))),
]
RESPONSES = [Response("An oak."), Response("Io and", finished=False)]


def answer(*rewards, **others):
    return 200, json.dumps({"rewards": list(rewards), **others}).encode()


def scorer_of(stub, *answers, settings=QUICK):
    stub.answers = list(answers)
    return RemoteScorer(stub.url, settings)


def test_what_is_sent_is_openrlhfs_request_and_more(stub):
    scorer = scorer_of(stub, answer(1.5, -2))
    assert scorer.score_with_spread(PROMPTS, RESPONSES) == ([1.5, -2.0], None)
    ((path, headers, body),) = stub.requests
    assert path == "/get_reward"
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers
    dialogue = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: A moon?\n\nAssistant: "
    assert json.loads(body) == {
        "query": ["Name a tree. An oak.", f"{dialogue}Io and"],
        "prompts": ["Name a tree. ", dialogue],
        "labels": ["oak", ""],
        "messages": [
            [{"role": "user", "content": "Name a tree. "}],
            [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "A moon?"},
            ],
        ],
        "responses": ["An oak.", "Io and"],
        "finished": [True, False],
    }


def test_a_system_turn_stands_before_the_others():
    turns = (Message("system", "Be brief."), Message("user", "A moon?"))
    assert prompt_text(Prompt("p", turns)) == "Be brief.\n\nHuman: A moon?\n\nAssistant: "


def test_a_template_goes_around_the_prompt(stub):
    settings = ScoringConfig(server_prompt_template="User: {}\nBot: ")
    scorer_of(stub, answer(0.0), settings=settings).score(PROMPTS[:1], RESPONSES[:1])
    sent = json.loads(stub.requests[0][2])
    assert (sent["prompts"], sent["query"]) == (["User: Name a tree. \nBot: "], ["User: Name a tree. \nBot: An oak."])


def test_labels_that_json_does_not_know_go_as_text(stub):
    prompt = Prompt("p", (Message("user", "When?"),), columns={"label": datetime.date(2024, 2, 29)})
    scorer_of(stub, answer(0.0)).score([prompt], RESPONSES[:1])
    assert json.loads(stub.requests[0][2])["labels"] == ["2024-02-29"]


def test_many_responses_go_in_several_requests(stub):
    scorer = scorer_of(stub, answer(*range(256)), answer(*range(256, 300)))
    assert scorer.score(PROMPTS[:1] * 300, RESPONSES[:1] * 300) == [float(value) for value in range(300)]
    assert [len(json.loads(body)["query"]) for _, _, body in stub.requests] == [256, 44]


def test_the_token_comes_from_the_environment(stub, monkeypatch):
    settings = ScoringConfig(server_token_env="REWARD_TOKEN")
    with pytest.raises(
        InputError, match=r"^server_token_env: the environment variable REWARD_TOKEN is not set; export"
    ):
        RemoteScorer(stub.url, settings)
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    scorer_of(stub, answer(0.0), settings=settings).score(PROMPTS[:1], RESPONSES[:1])
    assert stub.requests[0][1]["Authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("http://me:secret@127.0.0.1/get_reward", "the address holds a user or password"),
        ("http:///get_reward", "the address has no host"),
        ("http://127.0.0.1:port/get_reward", "is no address: "),
    ],
)
def test_addresses_that_cannot_be(address, problem):
    with pytest.raises(InputError, match=problem) as caught:
        RemoteScorer(address, QUICK)
    assert "secret" not in str(caught.value)


def test_a_proxy_does_not_stand_before_this_machine(stub, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert scorer_of(stub, answer(1.0)).score(PROMPTS[:1], RESPONSES[:1]) == [1.0]


# Versions


def test_without_a_version_the_address_is_the_identity(stub, capsys):
    first, again = scorer_of(stub, answer(0.0)), RemoteScorer(stub.url, QUICK)
    assert first.version == again.version and len(first.version) == 12
    assert RemoteScorer(f"{stub.url}2", QUICK).version != first.version
    assert f"reward server {stub.url} does not tell its version" in capsys.readouterr().err
    # Other programs' pages of health hold other things.
    for page in (b"", b"ok", b"[1]", b'{"version": "0.4.2"}', b'{"reward_version": 3}'):
        stub.health = (200, page)
        assert RemoteScorer(stub.url, QUICK).version == first.version


def test_a_server_that_changes_its_model_is_noticed(stub):
    stub.health = (200, b'{"reward_version": "abc"}')
    scorer = scorer_of(stub, answer(1.0, reward_version="abc"), answer(1.0, reward_version="def"))
    assert scorer.version == "abc"
    assert scorer.score(PROMPTS[:1], RESPONSES[:1]) == [1.0]
    with pytest.raises(InputError, match=r"now serves another model \(abc before, def now\)"):
        scorer.score(PROMPTS[:1], RESPONSES[:1])


# Answers


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"rewards": [1]}', "returned 1 scores for 2 responses"),
        (b'{"rewards": 1}', "returned int for 2 responses"),
        (b'{"rewards": null}', "returned NoneType for 2 responses"),
        (b'{"rewards": [1, NaN]}', r"returned nan for the prompt 'A moon\?'"),
        (b'{"rewards": [Infinity, 1]}', "returned inf for the prompt 'Name a tree. '"),
        (b'{"rewards": [1, null]}', r"returned None for the prompt 'A moon\?'"),
        (b'{"rewards": [[1], [2]]}', r"returned \[1\] for the prompt 'Name a tree. '"),
        (b'{"rewards": [1, 2], "score_spread": [1]}', "returned 1 spreads for 2 responses"),
        (b"<html>\nSign in</html>", "no JSON object with a list `rewards`, but has '<html>'"),
        (b"[1, 2]", r"no JSON object with a list `rewards`, but has '\[1, 2\]'"),
        (b'{"reward": [1, 2], "ok": true}', "no JSON object with a list `rewards`, but has only reward, ok"),
        (b"{}", "no JSON object with a list `rewards`, but has only nothing"),
    ],
)
def test_a_malformed_answer_names_the_address_and_what_is_wrong(stub, body, problem):
    scorer = scorer_of(stub, (200, body))
    with pytest.raises(InputError, match=f"^{stub.url}: reward: .*{problem}"):
        scorer.score(PROMPTS, RESPONSES)
    assert len(stub.requests) == 1, "what is malformed is not asked for again"


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (400, b"bad prompt\nmore", "bad prompt"),
        (422, b'{"detail": "query[0]: does not start with its prompt"}', r"query\[0\]: does not start"),
        (404, b"", ""),
        (302, b"elsewhere", "elsewhere"),
    ],
)
def test_a_refusal_is_the_users_to_mend(stub, status, body, text):
    scorer = scorer_of(stub, (status, body))
    with pytest.raises(
        InputError, match=f"^{stub.url}: reward: the reward server refused with status {status}: ?{text}"
    ):
        scorer.score(PROMPTS, RESPONSES)
    assert len(stub.requests) == 1


# Failures


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_that_fails_for_a_while_is_asked_again(stub, status):
    scorer = scorer_of(stub, (status, b"later"), (status, b"later"), (status, b"later"), answer(1, 2))
    assert scorer.score(PROMPTS, RESPONSES) == [1, 2]
    assert len(stub.requests) == 4 and len({body for _, _, body in stub.requests}) == 1


def test_a_server_that_fails_for_good_stops_the_run(stub):
    scorer = scorer_of(stub, (503, b'{"detail": "loading"}'))
    with pytest.raises(EnvironmentStop, match=rf"^reward server {stub.url}: status 503 loading \(tried 4 times\)$"):
        scorer.score(PROMPTS, RESPONSES)
    assert len(stub.requests) == 4


def test_the_wait_doubles(stub, monkeypatch):
    waits = []
    monkeypatch.setattr("prefloop.reward.client.time.sleep", waits.append)
    settings = ScoringConfig(retries=4, retry_seconds=0.5)
    with pytest.raises(EnvironmentStop):
        scorer_of(stub, (500, b""), settings=settings).score(PROMPTS, RESPONSES)
    assert waits == [0.5, 1, 2, 4]


def test_a_server_that_is_too_slow_stops_the_run(stub):
    settings = ScoringConfig(retries=1, retry_seconds=0.001, timeout_seconds=0.2)
    scorer = scorer_of(stub, answer(1, 2), settings=settings)
    stub.hold.clear()
    with pytest.raises(EnvironmentStop, match=r"no answer within 0.2 s \(tried 2 times\)"):
        scorer.score(PROMPTS, RESPONSES)


def test_a_server_that_is_away_stops_the_run(prefloop, data, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/get_reward"
    with pytest.raises(EnvironmentStop, match=f"^reward server {url}: .*refused.* \\(tried 4 times\\)"):
        RemoteScorer(url, QUICK)
    path, out = tmp_path / "responses.jsonl", tmp_path / "scores.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n')
    outcome = prefloop("reward score", url, path, "--out", out, "--scoring.retries", 0)
    assert outcome.code == 3 and not out.exists()
    assert outcome.said.startswith(f"stopped: reward server {url}: ")


# Beside other scorers


def test_a_server_is_one_term_of_a_sum(stub, tmp_path):
    (tmp_path / "rewards.py").write_text("def f(prompts, responses):\n    return [len(text) for text in responses]\n")
    stub.answers = [answer(1.0, 2.0)]
    specs = [f"{stub.url}@-2", f"{tmp_path / 'rewards.py'}:f"]
    scorer = load_scorer(specs, device=torch.device("cpu"), settings=QUICK)
    assert scorer.score_with_spread(PROMPTS, RESPONSES) == ([7 - 2.0, 6 - 4.0], None)
    assert reward_inputs(specs) == {"reward": tmp_path / "rewards.py"}
    assert reward_inputs(stub.url) == {} and first_reward_model(stub.url) is None


def test_commands_take_a_server(prefloop, stub, tmp_path):
    stub.answers = [answer(1.0, 3.0)]
    path, out = tmp_path / "responses.jsonl", tmp_path / "scores.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "c", "response": "d", "finish_reason": "length"}\n')
    assert prefloop("reward score", stub.url, path, "--out", out).answer["mean_score"] == 2.0
    assert [json.loads(line)["score"] for line in out.read_text().splitlines()] == [1.0, 3.0]
    assert json.loads(stub.requests[0][2])["finished"] == [True, False]
    assert math.isfinite(json.loads(out.read_text().splitlines()[0])["score"])

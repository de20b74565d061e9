"""`evaluate run` through the command line: evidence, its hashes, its judges, and a judge that goes away."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefloop.rundir import sha256_of
from prefloop.types import Evaluation

JUDGES = """
def prefers_e(prompts, first, second):
    def more(a, b):
        return float(b.count("e") > a.count("e"))
    return [(1 + more(a, b) - more(b, a)) / 2 for a, b in zip(first, second)]


def always_first(prompts, first, second):
    return [0.0] * len(prompts)


def beyond(prompts, first, second):
    return [2.0] * len(prompts)
"""


@pytest.fixture(scope="session")
def tuned(tune: Callable[..., Any], data: Path) -> Any:
    """A policy tuned to write the letter e."""
    outcome = tune("--reward", f"{data / 'rewards.py'}:count_e", "--num-steps", 8, "--kl-coef", 0.01)
    assert outcome.code == 0, outcome.said
    return outcome


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """judges.py, two suites and two files of text."""
    (tmp_path / "judges.py").write_text(JUDGES)
    (tmp_path / "words.jsonl").write_text(
        '{"prompt": "name things like the tree or the bee", "at_most": {"exclamation": 0}}\n'
        '{"prompt": "name things like the moon or the bee", "answer": ["no such word"]}\n'
    )
    (tmp_path / "held-out.txt").write_text("tree bee moon\n\nlamp road sun fog\n\nseed steel\n")
    (tmp_path / "rows.jsonl").write_text('{"text": "cheese seed"}\n{"text": "tree tree tree"}\n')
    return tmp_path


@pytest.fixture
def evaluate(prefloop: Callable[..., Any], tuned: Any, sft_run: Any, data: Path, tmp_path: Path) -> Callable[..., Any]:
    """`evaluate run` on the tuned policy beside the one that it started from."""

    def call(*settings: object) -> Any:
        return prefloop(
            *("evaluate run", tuned.run, "--against", sft_run.run, "--prompts", data / "prompts.jsonl"),
            *("--max-new-tokens", 12, "--temperature", 1, "--num-resamples", 200, "--out", tmp_path / "run", *settings),
        )

    return call


def measures(outcome: Any) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in outcome.answer["evaluations"]}


def said_to(outcome: Any, field: str, name: str) -> list[str]:
    """What a model answered to the first prompt of a set."""
    lines = (Path(outcome.answer["run"]) / "answers" / f"{field}-responses.jsonl").read_text().splitlines()
    return [row["response"] for row in map(json.loads, lines) if row["set"] == name][:1]


def evidence(outcome: Any) -> list[Evaluation]:
    """The file that a gate reads."""
    return [Evaluation(**json.loads(line)) for line in Path(outcome.answer["evidence"]).read_text().splitlines()]


def test_everything_is_measured_and_tied_to_what_it_is_about(
    evaluate: Callable[..., Any], files: Path, tuned: Any, sft_run: Any, data: Path
) -> None:
    outcome = evaluate(
        *("--judge", f"{files / 'judges.py'}:prefers_e", "--suites", files / "words.jsonl"),
        *("--texts", files / "held-out.txt", files / "rows.jsonl"),
    )
    assert outcome.code == 0, outcome.said
    found = measures(outcome)
    # It was tuned to write e, and is judged by e.
    assert found["win_rate"]["value"] > 60 and found["win_rate"]["interval"][0] > 50
    assert found["win_rate"]["n"] == 50
    assert found["length/change"]["p_value"] is not None and found["repetition"]["value"] >= 0
    # The first of two prompts is passed by whoever says anything, the other one never.
    said = [any(said_to(outcome, field, "words")) for field in ("candidate", "against")]
    assert (found["suite/words"]["value"], found["suite/words"]["n"]) == (0.5 * said[0], 2)
    assert found["suite/words/change"]["value"] == 0.5 * said[0] - 0.5 * said[1]
    assert found["suite/words/change"]["p_value"] == 1
    # It finds words without e more surprising than before.
    assert found["perplexity/held-out/change"]["value"] > 1
    assert found["perplexity/rows"]["n"] == 2
    assert outcome.answer["judge"]["consistent"] == 1.0 and outcome.answer["judge"]["first_preferred"] == 0.5
    lines = {each.name: each for each in evidence(outcome)}
    assert lines.keys() == found.keys()
    assert {each.candidate_sha256 for each in lines.values()} == {sha256_of(tuned.model)}
    assert {each.baseline_sha256 for each in lines.values()} == {sha256_of(sft_run.model)}
    assert lines["win_rate"].data_sha256 == sha256_of(data / "prompts.jsonl")
    assert lines["suite/words"].data_sha256 == sha256_of(files / "words.jsonl")
    assert lines["perplexity/rows"].data_sha256 == sha256_of(files / "rows.jsonl")
    assert all(each.at.endswith("+00:00") for each in lines.values())
    # Finished: the same command says so.
    again = evaluate(
        *("--judge", f"{files / 'judges.py'}:prefers_e", "--suites", files / "words.jsonl"),
        *("--texts", files / "held-out.txt", files / "rows.jsonl"),
    )
    assert again.answer == outcome.answer and "already finished" in again.said


def test_a_judge_that_always_takes_the_first_says_half(evaluate: Callable[..., Any], files: Path) -> None:
    outcome = evaluate("--judge", f"{files / 'judges.py'}:always_first", "--suites", files / "words.jsonl")
    assert outcome.code == 0, outcome.said
    assert measures(outcome)["win_rate"]["value"] == 50
    assert outcome.answer["judge"] | {"version": ""} == {
        **{"version": "", "first_preferred": 1.0, "consistent": 0.0, "unread": 0, "tuned_against": False}
    }


def test_a_judge_that_the_candidate_was_tuned_against_is_named(
    evaluate: Callable[..., Any], files: Path, data: Path
) -> None:
    outcome = evaluate("--judge", f"{data / 'rewards.py'}:count_e", "--suites", files / "words.jsonl")
    assert outcome.code == 0 and outcome.answer["judge"]["tuned_against"]
    assert "win_rate" in measures(outcome) and "held_out_reward" not in measures(outcome)
    assert "the candidate was tuned against this judge: its verdict is no independent evidence" in outcome.said


def test_a_reward_model_judges(evaluate: Callable[..., Any], reward_run: Any) -> None:
    outcome = evaluate("--judge", reward_run.run)
    assert outcome.code == 0, outcome.said
    found = measures(outcome)
    assert found["win_rate"]["value"] > 55 and outcome.answer["judge"]["consistent"] is None
    assert found["held_out_reward"]["value"] > 0 and found["held_out_reward"]["p_value"] is not None
    # The shipped suites, by default.
    assert {f"suite/{name}" for name in ("refuse", "answer", "unknown", "citations", "habits")} <= found.keys()
    # Such a model refuses nothing and answers with words of the ten.
    assert found["suite/refuse"]["value"] == 0 and found["suite/answer"]["value"] > 0.5
    inputs = json.loads((Path(outcome.answer["run"]) / "inputs.json").read_text())["inputs"]
    assert {"candidate", "against", "judge", "prompts", "suites:refuse"} <= inputs.keys()


def test_the_same_model_twice_is_no_better_than_itself(
    prefloop: Callable[..., Any], sft_run: Any, data: Path, tmp_path: Path, files: Path
) -> None:
    outcome = prefloop(
        *("evaluate run", sft_run.run, "--against", sft_run.model, "--prompts", data / "prompts.jsonl"),
        *("--judge", f"{data / 'rewards.py'}:count_e", "--max-new-tokens", 8, "--texts", files / "held-out.txt"),
        *("--out", tmp_path / "same", "--suites", "refuse", "--num-resamples", 50),
    )
    assert outcome.code == 0, outcome.said
    found = measures(outcome)
    assert found["win_rate"]["value"] == 50
    assert all(found[name]["value"] == (name.startswith("perplexity")) for name in found if name.endswith("/change"))
    assert "are the same model" in outcome.said
    # What it was trained on is named.
    assert outcome.answer["num_prompts_trained_on"] > 0


# A judge model behind an address


def completion(text: str) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


def by_letters(body: bytes) -> tuple[int, bytes]:
    """A judge model that counts e."""
    text = json.loads(body)["messages"][0]["content"]
    first = text.split("[Answer A]")[1].split("[End of answer A]")[0].count("e")
    second = text.split("[Answer B]")[1].split("[End of answer B]")[0].count("e")
    return completion(f"A says e {first} times. [[{'A' if first > second else 'B' if second > first else 'C'}]]")


def test_an_endpoint_judges_both_orders(evaluate: Callable[..., Any], endpoint: Any, files: Path) -> None:
    endpoint.reply = by_letters
    words = ("--judge", endpoint.url, "--endpoint.model", "judge-1", "--suites", files / "words.jsonl")
    outcome = evaluate(*words)
    assert outcome.code == 0, outcome.said
    # Two equal responses are one question in both orders.
    assert 90 < len(endpoint.requests) <= 100
    path, body = endpoint.requests[0]
    assert path == "/v1/chat/completions"
    assert {key: json.loads(body)[key] for key in ("model", "temperature", "max_tokens")} == {
        **{"model": "judge-1", "temperature": 0, "max_tokens": 1024}
    }
    assert outcome.answer["judge"]["consistent"] == 1.0
    other = evaluate(
        "--judge", f"{files / 'judges.py'}:prefers_e", "--suites", files / "words.jsonl", "--out", files / "o"
    )
    assert measures(other)["win_rate"]["value"] == measures(outcome)["win_rate"]["value"]


def test_a_judge_that_goes_away_stops_the_run_and_nothing_is_lost(
    evaluate: Callable[..., Any], endpoint: Any, files: Path
) -> None:
    words = ("--judge", endpoint.url, "--endpoint.model", "judge-1", "--suites", files / "words.jsonl")
    words += ("--endpoint.parallel", 1, "--endpoint.retries", 2, "--endpoint.retry-seconds", 0.001)
    endpoint.reply = lambda body: by_letters(body) if len(endpoint.requests) <= 30 else (503, b"overloaded")
    outcome = evaluate(*words)
    assert outcome.code == 3
    assert f"stopped: judge {endpoint.url}/chat/completions: status 503 overloaded (tried 3 times)" in outcome.said
    run = files / "run"
    assert not (run / "evaluations.jsonl").exists() and not (run / "result.json").exists()
    assert len((run / "verdicts.jsonl").read_text().splitlines()) == 30
    # It comes back: only what was not said is asked for, and the models are not sampled again.
    endpoint.requests.clear()
    endpoint.reply = by_letters
    with (run / "verdicts.jsonl").open("a") as file:
        file.write('{"key": "cut o')
    before = (run / "answers" / "candidate-responses.jsonl").stat().st_mtime_ns
    outcome = evaluate(*words)
    assert outcome.code == 0, outcome.said
    assert 30 + len(endpoint.requests) == len((run / "verdicts.jsonl").read_text().splitlines())
    assert 60 < len(endpoint.requests) <= 70
    assert (run / "answers" / "candidate-responses.jsonl").stat().st_mtime_ns == before


def test_a_judge_that_is_not_there_stops_the_run(evaluate: Callable[..., Any], files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = evaluate(
        *("--judge", f"http://127.0.0.1:{port}/v1", "--endpoint.model", "m", "--endpoint.retries", 0),
        *("--suites", files / "words.jsonl"),
    )
    assert outcome.code == 3 and "refused" in outcome.said
    assert not (files / "run" / "evaluations.jsonl").exists()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, b"hello"), "the judge's answer is no chat completion"),
        ((200, b'{"choices": []}'), "the judge's answer is no chat completion"),
        ((404, b'{"detail": "no model m"}'), "the judge refused with status 404: no model m"),
        (completion("They are both nice."), "100 of 100 answers of the judge hold no verdict"),
    ],
)
def test_answers_of_a_judge_that_mean_nothing(
    evaluate: Callable[..., Any], endpoint: Any, files: Path, answer: tuple[int, bytes], problem: str
) -> None:
    endpoint.reply = lambda _: answer
    outcome = evaluate("--judge", endpoint.url, "--endpoint.model", "m", "--suites", files / "words.jsonl")
    assert problem in outcome.problem


def test_a_few_answers_without_a_verdict_are_ties(evaluate: Callable[..., Any], endpoint: Any, files: Path) -> None:
    endpoint.reply = lambda body: completion("Hard to say.") if len(endpoint.requests) <= 10 else by_letters(body)
    words = ("--judge", endpoint.url, "--endpoint.model", "m", "--suites", files / "words.jsonl")
    outcome = evaluate(*words, "--endpoint.parallel", 1)
    assert outcome.code == 0 and 10 <= outcome.answer["judge"]["unread"] <= 20


def test_a_question_of_ones_own(evaluate: Callable[..., Any], endpoint: Any, files: Path) -> None:
    endpoint.reply = lambda _: completion("A")
    (files / "ask.txt").write_text("{second} or {first}, for {prompt}?")
    words = ("--judge", endpoint.url, "--endpoint.model", "m", "--suites", files / "words.jsonl")
    words += ("--endpoint.parallel", 1, "--endpoint.prompt")
    assert evaluate(*words, files / "ask.txt").code == 0
    asked = json.loads(endpoint.requests[0][1])["messages"][0]["content"]
    assert asked.endswith("for name things like the tree or the tree?")
    gone = evaluate(*words, files / "gone.txt", "--out", files / "b")
    assert "gone.txt: endpoint.prompt: no such file" in gone.problem
    (files / "bad.txt").write_text("{first} or {second}?")
    assert (
        "endpoint.prompt: has no {prompt}; write" in evaluate(*words, files / "bad.txt", "--out", files / "b").problem
    )


# Bad input


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["--judge", "{tmp}/judges.py:beyond"], "judge: returned 2.0; return a list with one number from 0"),
        (["--judge", "{tmp}/judges.py:missing"], "judge: no missing in this file; it has prefers_e, always_first"),
        (["--judge", "{tmp}/none.py:f"], "none.py: judge: no such file"),
        (["--judge", "{tmp}/judges.py:beyond", "--suites", "{tmp}/empty.jsonl"], "empty.jsonl: the file holds no rows"),
        (["--judge", "{tmp}/judges.py:beyond", "--suites", "nope"], "nope: suites: no such suite; give a file, or one"),
        (["--judge", "{tmp}/judges.py:beyond", "--suites", "refuse", "refuse"], "have one name; rename one"),
        (["--judge", "{tmp}/judges.py:beyond", "--texts", "{tmp}/none.txt"], "none.txt: texts: no such file"),
        (["--judge", "{tmp}/judges.py:beyond", "--texts", "{tmp}/empty.txt"], "the file holds no text"),
        (["--judge", "{tmp}/judges.py:beyond", "--texts", "{tmp}/latin.txt"], "latin.txt: texts: not UTF-8; save the"),
        (["--judge", "{tmp}/judges.py:beyond", "--texts", "{tmp}/bad.jsonl"], "bad.jsonl:1: text: is empty; give one"),
        (
            ["--judge", "{tmp}/judges.py:beyond", "--texts", "{tmp}/rows.jsonl", "{tmp}/rows.jsonl"],
            "two files have one",
        ),
        (["--judge", "{tmp}/judges.py:beyond", "--suites", "{tmp}/prompts.jsonl"], "have one name; rename one"),
        (["--judge", "{tmp}/judges.py:beyond", "--endpoint.model", "m"], "judge: a judge model needs one address"),
        ([], "prompts and judge belong together: give both or neither"),
        (["--judge", "x", "--endpoint.retries", 3], "retries has no effect without model"),
    ],
)
def test_what_cannot_be_used_is_named_and_leaves_no_evidence(
    evaluate: Callable[..., Any], files: Path, settings: list[object], problem: str
) -> None:
    (files / "empty.jsonl").write_text("")
    (files / "empty.txt").write_text("\n \n")
    (files / "latin.txt").write_bytes(b"caf\xe9")
    (files / "bad.jsonl").write_text('{"text": ""}\n')
    (files / "prompts.jsonl").write_text('{"prompt": "a", "expect": "refuse"}\n')
    outcome = evaluate(*(str(each).replace("{tmp}", str(files)) for each in settings))
    assert problem in outcome.problem
    assert not (files / "run" / "evaluations.jsonl").exists()


def test_nothing_to_measure_is_said(prefloop: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"candidate: {tmp_path}\nagainst: {tmp_path}\nsuites: []\n")
    assert "nothing to measure" in prefloop("evaluate run", "--config", tmp_path / "c.yaml").problem
    words = ("evaluate run", tmp_path, "--against", tmp_path, "--endpoint.model", "m")
    assert "endpoint.model has no effect without judge" in prefloop(*words).problem


def test_a_model_that_is_not_there(prefloop: Callable[..., Any], sft_run: Any, tmp_path: Path) -> None:
    outcome = prefloop("evaluate run", tmp_path / "gone", "--against", sft_run.run, "--out", tmp_path / "run")
    assert outcome.problem.startswith(f"{tmp_path / 'gone'}: candidate: no such directory")
    assert not (tmp_path / "run").exists()

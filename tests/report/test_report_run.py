"""The page of a single run: everything in its files, and nothing that is not."""

import json

import pytest

from prefloop.report.run import render_run
from prefloop.types import InputError

HOSTILE = "</script><script>alert(1)</script>"


@pytest.fixture
def run_dir(tmp_path):
    path = tmp_path / "policy"
    (path / "rollouts").mkdir(parents=True)
    result = {
        "run": str(path),
        "command": "train policy",
        "stopped": "kl_budget",
        "metrics": {"eval/loss": 1.23456, "steps": 48, "note": "kept", "by_kind": {"fact": 0.5}, "exact": True},
        "outputs": {"model": "checkpoints/step-48/policy"},
    }
    inputs = {
        "command": "train policy",
        "inputs": {"reward": {"path": "models/reward", "sha256": "ab" * 32, "audit": "none"}},
        "prefloop": "0.1.0",
        "python": "3.11.7",
        "packages": {"torch": "2.13.0"},
        "seed": 7,
    }
    metrics = [
        {
            "step": step,
            "score/mean": 0.1 * step,
            "loss": 1 / step,
            "note": "x",
            "flag": True,
            "time/update_seconds": 0.5,
        }
        for step in range(1, 6)
    ]
    rollouts = [
        {
            "rollout_id": f"r{index}",
            "prompt": f"prompt {index}",
            "response": f"response {index} {HOSTILE}",
            "score": 0.25,
            "kl": 1.5,
            "finish_reason": "length" if index % 2 else "stop",
            "step": index,
        }
        for index in range(40)
    ]
    (path / "result.json").write_text(json.dumps(result))
    (path / "inputs.json").write_text(json.dumps(inputs))
    (path / "config.yaml").write_text(f"seed: 7\nnote: '{HOSTILE}'\n")
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (path / "rollouts" / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rollouts))
    return path


def test_result_inputs_and_config_are_shown(run_dir, read_page):
    read = read_page(render_run(run_dir))
    for text in (
        "prefloop train policy",
        "Run policy · ended: kl budget",
        "Loss on held-out rows eval/loss 1.235",
        "steps 48",
        'by_kind {"fact": 0.5}',
        "exact true",
        "model checkpoints/step-48/policy",
        f"reward models/reward {'ab' * 8}… none",
        "prefloop 0.1.0, python 3.11.7, torch 2.13.0",
        "Seed 7",
        f"note: '{HOSTILE}'",
    ):
        assert text in read.words
    assert len(read.scripts) == 2


def test_every_numeric_metric_has_its_curve(run_dir, read_page):
    figures = read_page(render_run(run_dir)).figures
    curves = [figure["data"][0]["y"] for figure in figures if figure["data"][0]["type"] == "scatter"]
    assert curves == [pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5]), pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 1 / 5])]


def test_time_is_summed_over_steps(run_dir, read_page):
    bars = [
        figure["data"][0] for figure in read_page(render_run(run_dir)).figures if figure["data"][0]["type"] == "bar"
    ]
    assert [(bar["y"], bar["x"]) for bar in bars] == [(["update"], [2.5])]


def test_ten_random_rollouts_in_order(run_dir, read_page):
    read = read_page(render_run(run_dir))
    shown = [index for index in range(40) if f"prompt {index} Step {index} response {index} {HOSTILE}" in read.words]
    assert len(shown) == read.tags.count("article") == 10
    assert "10 of the 40 responses" in read.words
    # A random ten of forty is hardly the first ten or the last ten.
    assert shown not in (list(range(10)), list(range(30, 40)))
    assert read.words.count("cut off") == sum(index % 2 for index in shown)
    assert render_run(run_dir) == render_run(run_dir)


def test_a_run_with_nothing_but_a_result_still_has_a_page(tmp_path, read_page):
    (tmp_path / "result.json").write_text('{"command": "data convert", "stopped": "done", "answer": {"rows": 3}}')
    read = read_page(render_run(tmp_path))
    assert "The whole answer" in read.words and '"rows": 3' in read.words
    assert not read.figures
    (tmp_path / "result.json").write_text('{"command": "data convert"}')
    assert "left no numbers" in read_page(render_run(tmp_path)).words


def test_a_run_without_input_files_says_so(run_dir, read_page):
    (run_dir / "inputs.json").write_text('{"inputs": {}, "seed": 1}')
    assert "The run read no file." in read_page(render_run(run_dir)).words


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        ("metrics.jsonl", '{"step": 6, "loss"', r"metrics\.jsonl:6: is not JSON"),
        ("metrics.jsonl", b"\xff\xfe", r"metrics\.jsonl:6: is not JSON"),
        ("rollouts/rollouts.jsonl", None, r"rollouts\.jsonl:\d+: score: "),
    ],
)
def test_damage_is_named_by_line(run_dir, file, line, expected):
    path = run_dir / file
    added = line.encode() if isinstance(line, str) else line
    path.write_bytes(path.read_bytes() + added if line else path.read_bytes().replace(b": 0.25", b': "high"'))
    with pytest.raises(InputError, match=expected):
        render_run(run_dir)


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("inputs.json", {"inputs": 3}, r"inputs\.json: inputs: "),
        ("inputs.json", {"inputs": {"data": "a.jsonl"}}, r"inputs\.json: inputs\.data: "),
        ("result.json", {"command": "train sft", "metrics": [1]}, r"result\.json: metrics: "),
        ("result.json", {"command": "train sft", "outputs": {"model": 3}}, r"result\.json: outputs\.model: "),
    ],
)
def test_a_record_of_another_shape_is_named_by_field(run_dir, file, content, expected):
    (run_dir / file).write_text(json.dumps(content))
    with pytest.raises(InputError, match=expected):
        render_run(run_dir)


def test_a_config_that_is_no_text_is_shown_all_the_same(run_dir, read_page):
    (run_dir / "config.yaml").write_bytes(b"lr: 0.1 # caf\xe9")
    assert "lr: 0.1 # caf\ufffd" in read_page(render_run(run_dir)).words

"""The written pages say what is true of the code: links, commands, defaults, file formats, the path of a PPO step."""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pydantic import BaseModel

from prefloop.audit.config import Thresholds
from prefloop.cli import COMMANDS, config_class, main, split_words
from prefloop.config import load
from prefloop.data.commands import RECORD_KINDS, check
from prefloop.data.config import DataCheckConfig
from prefloop.data.fields import kind_of
from prefloop.fields import as_text, section_type
from prefloop.flags import parse
from prefloop.gate.config import GateLimits
from prefloop.gate.decide import requirements
from prefloop.models.config import LoraConfig
from prefloop.reward.config import ScoringConfig, ShapingConfig
from prefloop.signals.measures import SIGNALS
from prefloop.train.algorithms import ALGORITHMS, algorithm_settings
from prefloop.train.config import OptimizerConfig, PolicyConfig, PreferenceConfig, RewardConfig, SFTConfig
from prefloop.train.examine_settings import ExamineConfig
from prefloop.train.preference_losses import LOSSES
from prefloop.train.reward_settings import AugmentConfig, HeadsConfig, MembersConfig, OdinConfig
from prefloop.types import Approval, Evaluation

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "prefloop"
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE_REFERENCE = re.compile(r"`([\w/]+\.py):([\w.]+)`")
SOURCE_FILE = re.compile(r"`(\w[\w/]*\.py)[:`]")

TINY = ["--scratch.hidden-size", "32", "--scratch.num-layers", "1", "--scratch.num-heads", "2"]
HALLS = ("Alder", "Birch", "Cedar", "Dogwood", "Elm", "Fir", "Gorse", "Hazel", "Ivy", "Juniper", "Kauri", "Larch")


def _text(page: str) -> str:
    """A page without its comments."""
    return COMMENT.sub("", (ROOT / page).read_text(encoding="utf-8"))


def _section(page: str, heading: str) -> str:
    """The text under a heading, up to the next one of its level or above."""
    level = heading.partition(" ")[0]
    _, found, rest = _text(page).partition(f"\n{heading}\n")
    assert found, f"{page} has no {heading}"
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def _commands(text: str) -> list[str]:
    """The `prefloop` command lines in fenced blocks."""
    lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    return [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?prefloop [a-z]", line)]


def _table(text: str) -> list[list[str]]:
    """The cells of a table's rows, header left out. A `|` inside a code span does not end a cell."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"\|(?=(?:[^`]*`[^`]*`)*[^`]*$)", row)[1:-1]] for row in rows[2:]]


def _anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# Links and commands


def _links() -> Iterator[Any]:
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for target in LINK.findall(FENCE.sub("", _text(name))):
            if not target.startswith(("http://", "https://", "mailto:")):
                yield pytest.param(page, target, id=f"{name} -> {target}")


@pytest.mark.parametrize(("page", "target"), list(_links()))
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    assert file.exists()
    assert not anchor or anchor in _anchors(file)


def test_the_pages_link_each_other() -> None:
    linked = {target.partition("#")[0] for target in LINK.findall(_text("README.md"))}
    wanted = {
        f"docs/{name}.md" for name in ("reward-hacking", "algorithms", "registry", "tour", "glossary", "decisions")
    }
    assert wanted <= linked


@pytest.mark.parametrize(
    ("page", "line"),
    [
        pytest.param(name, line, id=f"{name}: {line}")
        for name in (str(page.relative_to(ROOT)) for page in PAGES)
        for line in _commands(_text(name))
    ],
)
def test_a_command_line_is_valid(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)[1:]
    name, rest = split_words(words)
    assert name is not None, "no such command"
    model, _ = config_class(name, COMMANDS[name], rest)
    given = parse(rest, model, COMMANDS[name].positionals, command=name)
    if not given.help and given.config is None:
        load(model, overrides=given.overrides)


def test_commands_are_found_in_blocks_only_and_joined() -> None:
    text = "prefloop train\n```\n$ prefloop train sft \\\n    --data a.jsonl\npip install prefloop\n```\n"
    assert [shlex.split(line) for line in _commands(text)] == [["prefloop", "train", "sft", "--data", "a.jsonl"]]


# README


def test_the_rows_of_the_format_table_can_be_read_as_their_kind(tmp_path: Path) -> None:
    rows = _table(_section("README.md", "## Your own data"))
    assert {kind for kind, _ in rows} == {
        *("pairs", "rankings", "ratings", "judgments", "demonstrations", "unpaired", "prompts")
    }
    for number, (kind, example) in enumerate(rows):
        assert kind_of(json.loads(example.strip("`"))) == kind
        file = tmp_path / f"{number}.jsonl"
        file.write_text(example.strip("`") + "\n", encoding="utf-8")
        answer = check(DataCheckConfig(file=str(file)))
        assert answer["num_bad"] == 0
        assert answer["kind"] == RECORD_KINDS.get(kind, kind)


def test_the_loop_of_the_readme_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _write_pairs(Path("pairs.jsonl"), HALLS[2:])
    _write_pairs(Path("held-out.jsonl"), HALLS[:2])
    lines = _commands(_section("README.md", "## Your own data"))
    assert [split_words(line.split()[1:])[0] for line in lines] == [
        *("data check", "audit data", "train sft", "train reward", "reward eval", "audit reward", "train policy")
    ]
    lines += _commands(_section("README.md", "## What goes live"))
    # The smallest shapes that still run every line.
    few = ["--max-new-tokens", "4"]
    shorter = {"train sft": TINY, "train policy": ["--num-steps", "1", *few], "evaluate run": few}
    answers = {}
    for line in lines:
        words = shlex.split(line)[1:]
        name = " ".join(words[:2])
        if name == "evaluate run":
            shutil.copytree("runs/reward", "runs/other-reward")
        code = main([*words, *shorter.get(name, []), "--json"])
        # Four held-out prompts are no evidence: the gate holds, and nothing is promoted.
        refused = name == "model gate" or (name == "model promote" and "model gate" in answers)
        assert code == int(refused), line
        answers[name] = json.loads(capsys.readouterr().out or "{}")
    assert answers["train policy"]["stopped"] == "done"
    assert (Path("runs/ppo") / answers["train policy"]["outputs"]["model"] / "model.safetensors").exists()
    assert answers["model gate"]["verdict"] == "hold"


def _write_pairs(path: Path, halls: tuple[str, ...]) -> None:
    # The longer answer is right as often as the shorter one, or the audit would forbid to train on them.
    wrong = {8: "No idea", 9: "Somebody must know that."}
    rows = [
        {"prompt": f"When does {hall} Hall {number} open?", "chosen": f"At {number} sharp.", "rejected": wrong[number]}
        for hall in halls
        for number in (8, 9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


# Defaults in docs/algorithms.md


def _documented() -> dict[str, dict[str, list[str]]]:
    """Class name -> setting -> the further cells of its row."""
    parts = re.split(r"^####? .*`(\w+)`$", _section("docs/algorithms.md", "## Defaults"), flags=re.MULTILINE)
    tables = zip(parts[1::2], parts[2::2], strict=True)
    return {name: {row[0].strip("`"): row[1:] for row in _table(text)} for name, text in tables}


def _declaring(model: type[BaseModel], field: str) -> type[BaseModel]:
    """The class whose default of a field is in force."""
    return next(each for each in model.__mro__ if field in vars(each).get("__annotations__", {}))


def _default(model: type[BaseModel], field: str) -> str:
    """The second cell of a setting's row."""
    info = model.model_fields[field]
    if info.is_required():
        return "required"
    section = section_type(info.annotation)
    if section is None or info.default is None:
        return f"`{as_text(info.default)}`"
    changed = info.default.model_dump(exclude_unset=True)
    return f"`{section.__name__}`" + (f" with `{as_text(changed)}`" if changed else "")


# The base classes of algorithms and of losses are no configs of their own: each one's table is whole.
WHOLE = (*map(algorithm_settings, ALGORITHMS), *LOSSES.values())
CONFIGS = (SFTConfig, RewardConfig, PreferenceConfig, PolicyConfig)
PARTS = (
    *(LoraConfig, OptimizerConfig, ScoringConfig, ShapingConfig, ExamineConfig),
    *(AugmentConfig, HeadsConfig, MembersConfig, OdinConfig),
)


@pytest.mark.parametrize("model", [*PARTS, *CONFIGS, *WHOLE])
def test_every_default_stands_in_the_table(model: type[BaseModel]) -> None:
    documented = _documented()
    wanted = {field: _default(model, field) for field in model.model_fields}
    found = {}
    for field, info in model.model_fields.items():
        declaring = _declaring(model, field)
        table = documented[model.__name__ if model in WHOLE else declaring.__name__]
        if field in table:
            found[field] = table[field][0]
        if section := section_type(info.annotation):
            assert documented[section.__name__].keys() == section.model_fields.keys()
    assert found == wanted


def test_no_table_has_a_setting_that_does_not_exist() -> None:
    known = {each.__name__: each for model in CONFIGS for each in model.__mro__}
    known |= {each.__name__: each for each in (*PARTS, *WHOLE)}
    known["ScratchConfig"] = section_type(SFTConfig.model_fields["scratch"].annotation)
    for name, table in _documented().items():
        assert table.keys() <= known[name].model_fields.keys()


def test_every_default_has_a_source() -> None:
    for name, table in _documented().items():
        for field, (default, source) in table.items():
            sections = ("`OptimizerConfig`", "`ScratchConfig`", "`ScoringConfig`", "`ShapingConfig`", "`AugmentConfig`")
            derived = default == "required" or default.startswith(sections)
            assert source or derived, f"{name}.{field}"


# docs/audits.md


def test_every_threshold_of_an_audit_has_its_default_and_a_reason() -> None:
    rows = {row[0].strip("`"): row[1:] for row in _table(_section("docs/audits.md", "## Thresholds"))}
    assert {name: default for name, (default, _) in rows.items()} == {
        name: f"`{as_text(info.default)}`" for name, info in Thresholds.model_fields.items()
    }
    assert all(reason for _, reason in rows.values())


def test_every_probe_is_explained() -> None:
    told = {
        name for row in _table(_section("docs/audits.md", "## Every probe")) for name in re.findall("`(.+?)`", row[0])
    }
    assert told >= {*SIGNALS, "refusal_coverage", "label_noise", "leakage", "position", "annotators", "conflicts"}


# docs/registry.md


def test_every_limit_of_the_gate_has_its_default_and_a_reason() -> None:
    rows = {row[0].strip("`"): row[1:] for row in _table(_section("docs/registry.md", "## Checks and limits"))}
    assert rows.keys() == GateLimits.model_fields.keys()
    for name, requirement in requirements(GateLimits()).items():
        asks, default, reason = rows[name]
        assert re.findall("`(.+?)`", asks) == list(requirement.evaluations)
        limits = [limit for limit in (requirement.at_least, requirement.at_most) if limit is not None]
        wanted = [*(f"`{as_text(limit)}`" for limit in limits), f"`{requirement.min_rows}`"]
        assert re.findall("`.+?`", default) == wanted
        assert default.startswith("off") == (not requirement.required)
        assert ("at least" in default) == (requirement.at_least is not None)
        assert reason


def test_the_evidence_of_the_page_has_all_fields() -> None:
    rows = {row[0]: re.findall("`(.+?)`", row[1]) for row in _table(_section("docs/registry.md", "## Evidence"))}
    for kind, record in (("evaluation", Evaluation), ("approval", Approval)):
        assert rows[kind] == [field.name for field in dataclasses.fields(record)]


# docs/tour.md


def _names(path: Path) -> set[str]:
    """Functions, classes and methods of a file, methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_every_file_and_function_of_the_tour_exists() -> None:
    text = _text("docs/tour.md")
    files, references = set(SOURCE_FILE.findall(text)), set(CODE_REFERENCE.findall(text))
    assert len(references) > 40
    assert [file for file in files if not (SOURCE / file).is_file() and not (ROOT / file).is_file()] == []
    assert [f"{file}:{name}" for file, name in references if name not in _names(SOURCE / file)] == []


def test_the_tour_has_ten_files_that_read_in_an_afternoon() -> None:
    listed = re.findall(r"^\d+\. \[`([\w/.]+)`\]\(\.\./src/prefloop/([\w/.]+)\)", _text("docs/tour.md"), re.MULTILINE)
    assert len(listed) == 10
    assert all(shown == linked for shown, linked in listed)
    assert sum(len((SOURCE / file).read_text(encoding="utf-8").splitlines()) for file, _ in listed) < 2700


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The directory of tiny runs of every stage, and the package's functions in the order of their first call in the
    PPO run."""
    root = tmp_path_factory.mktemp("stages")
    _write_pairs(root / "pairs.jsonl", HALLS)
    pairs, sft, reward = (str(root / name) for name in ("pairs.jsonl", "sft", "reward"))
    assert main(["train", "sft", "--data", pairs, "--eval-fraction", "0.2", "--out", sft, *TINY]) == 0
    assert main(["train", "reward", "--model", sft, "--data", pairs, "--eval-fraction", "0.2", "--out", reward]) == 0
    for loss in LOSSES:
        words = ["train", "preference", "--model", sft, "--data", pairs, "--loss", loss]
        assert main([*words, "--out", str(root / loss), "--eval-fraction", "0.2"]) == 0
    policy = ["train", "policy", "--model", sft, "--reward", reward, "--prompts", pairs]
    policy += ["--num-steps", "1", "--prompts-per-step", "4", "--max-new-tokens", "6"]
    calls: dict[str, None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(SOURCE)):
            calls.setdefault(f"{Path(code.co_filename).relative_to(SOURCE)}:{code.co_qualname}")

    sys.setprofile(note)
    try:
        status = main([*policy, "--out", str(root / "ppo")])
    finally:
        sys.setprofile(None)
    assert status == 0
    assert main([*policy, "--algorithm", "rloo", "--out", str(root / "rloo")]) == 0
    return root, list(calls)


def test_a_ppo_step_takes_the_way_that_the_tour_tells(traced: tuple[Path, list[str]]) -> None:
    told = [":".join(each) for each in CODE_REFERENCE.findall(_section("docs/tour.md", "## One PPO step"))]
    told = list(dict.fromkeys(told))
    _, called = traced
    assert [name for name in told if name not in called] == []
    assert told == sorted(told, key=called.index)


# docs/glossary.md


def test_the_glossary_has_every_metric(traced: tuple[Path, list[str]]) -> None:
    root, _ = traced
    patterns = set()
    for row in _table(_section("docs/glossary.md", "## Metrics")):
        patterns |= set(re.findall(r"`([\w/*]+)`", row[0]))
    assert "kl/full" in patterns
    runs = ("sft", "reward", *LOSSES, "ppo", "rloo")
    logged = {
        key
        for run in runs
        for line in (root / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        for key in json.loads(line)
    } - {"step"}
    assert {"sft/loss", "eval/accuracy", "reward/margin", "preference/reference_point", "value/loss"} <= logged
    assert [key for key in sorted(logged) if not any(fnmatch.fnmatch(key, pattern) for pattern in patterns)] == []

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator

from prefloop.config import Section, config_hash, differing_keys, dump_yaml, load, unknown_name
from prefloop.fields import fields_of, given_words, type_label
from prefloop.types import InputError
from prefloop.yaml_tree import read_yaml


class Optimizer(Section):
    """How weights are updated."""

    lr: PositiveFloat = 1e-5
    """Peak learning rate."""
    warmup_fraction: float = 0.1
    """Share of the steps in which the rate rises."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the two moments."""


class Adapter(Section):
    """A low-rank adapter."""

    rank: PositiveInt = 8
    """Rank."""


class Source(Section):
    """One file."""

    path: str
    """The file."""
    weight: NonNegativeFloat = 1.0
    """Its share."""


class Config(Section):
    """A config with every kind of field."""

    data: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files."""
    optimizer: Optimizer = Optimizer()
    """The optimizer."""
    adapter: Adapter | None = None
    """An adapter, if any."""
    sources: tuple[Source, ...] = ()
    """Weighted files."""
    floors: Mapping[str, float] = {}
    """Lowest allowed value of each metric."""
    loss: Literal["dpo", "ipo"] = "dpo"
    """The loss."""
    model: Path | None = None
    """Starting weights."""
    label: str = ""
    """Free text."""
    code: Annotated[str, Field(min_length=2, pattern="^[a-z]+$")] = "abc"
    """Lower-case letters."""
    share: Annotated[float, Field(allow_inf_nan=False)] = 0.5
    """A finite number."""
    mode: Literal["a", "b"] | None = None
    """A word, or nothing."""
    size: int | str = "auto"
    """A number, or a word."""
    skip_bad: bool = False
    """Whether to leave out bad rows."""
    num_steps: int = 10
    """Steps."""
    limit: PositiveInt | None = None
    """Largest number of rows."""
    out: str | None = None
    """Run directory."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        if self.num_steps > 1000 and self.limit is None:
            raise ValueError("num_steps above 1000 needs a limit")
        return self


@pytest.fixture
def yaml_file(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def failure(path: Path | None = None, overrides: Mapping[str, str | list[str]] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load(Config, yaml_path=path, overrides=overrides)
    return str(caught.value).replace(str(path), "c.yaml")


def test_yaml_values_have_their_types(yaml_file: Any) -> None:
    config = load(
        Config,
        yaml_path=yaml_file(
            "data: [a.jsonl, b.jsonl]\n"
            "optimizer:\n"
            "  lr: 1e-4\n"
            "  betas: [0.9, 1]\n"
            "adapter: {rank: 16}\n"
            "sources:\n- path: x\n- {path: y, weight: 2}\n"
            "floors: {truth: 0.5}\n"
            "model: runs/sft\n"
            "label: no\n"
        ),
    )
    assert config.data == ("a.jsonl", "b.jsonl")
    assert config.optimizer == Optimizer(lr=0.0001, betas=(0.9, 1.0))
    assert config.adapter == Adapter(rank=16)
    assert config.sources == (Source(path="x"), Source(path="y", weight=2.0))
    assert config.floors == {"truth": 0.5}
    assert config.model == Path("runs/sft")
    assert config.label == "no"  # YAML 1.1 would make it a boolean.


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"optimizer.lr": "3e-4"}, {"optimizer": Optimizer(lr=3e-4)}),
        ({"optimizer.betas": ["0.8", "1"]}, {"optimizer": Optimizer(betas=(0.8, 1.0))}),
        ({"adapter.rank": "4"}, {"adapter": Adapter(rank=4)}),
        ({"skip_bad": "true"}, {"skip_bad": True}),
        ({"skip_bad": "False"}, {"skip_bad": False}),
        ({"limit": "7"}, {"limit": 7}),
        ({"limit": "none"}, {"limit": None}),
        ({"model": "none"}, {"model": None}),
        ({"model": "5"}, {"model": Path("5")}),
        ({"label": "17"}, {"label": "17"}),
        ({"label": "none"}, {"label": "none"}),
        ({"size": "17"}, {"size": 17}),
        ({"size": "big"}, {"size": "big"}),
        ({"floors": ["truth=0.5", "refusal=1"]}, {"floors": {"truth": 0.5, "refusal": 1.0}}),
        ({"loss": "ipo"}, {"loss": "ipo"}),
        ({"num_steps": "-3"}, {"num_steps": -3}),
        ({"data": "one"}, {"data": ("one",)}),
        ({"limit": ["none"]}, {"limit": None}),
        ({"limit": ["4"]}, {"limit": 4}),
        ({"mode": "b"}, {"mode": "b"}),
        ({"mode": "none"}, {"mode": None}),
    ],
)
def test_typed_text_becomes_the_type_of_its_field(
    overrides: Mapping[str, str | list[str]], expected: dict[str, Any]
) -> None:
    loaded = load(Config, overrides={"data": ["d"], **overrides})
    assert loaded == Config(**{"data": ("d",), **expected})


def test_an_override_replaces_one_key_of_a_section(yaml_file: Any) -> None:
    path = yaml_file("data: [a]\noptimizer:\n  lr: 0.5\n  warmup_fraction: 0.2\n")
    config = load(Config, yaml_path=path, overrides={"optimizer.lr": "1e-4", "data": ["b"]})
    assert config.optimizer == Optimizer(lr=1e-4, warmup_fraction=0.2)
    assert config.data == ("b",)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("data: [a]\noptimizer:\n  lrr: 1\n", "c.yaml:3: optimizer.lrr: unknown key; did you mean lr?"),
        ("data: [a]\nzzz: 1\n", "c.yaml:2: zzz: unknown key; known: data, optimizer, adapter"),
        ("dta: [a]\n", "c.yaml:1: dta: unknown key; did you mean data?"),
        ("data: [a]\nsources:\n- path: x\n- pth: y\n", "c.yaml:4: sources[1].pth: unknown key; did you mean path?"),
        ("data: [a]\nsources:\n- weight: 1\n", "c.yaml:3: sources[0].path: is required"),
        ('data: [a]\nnum_steps: "3"\n', 'c.yaml:2: num_steps: is "3"; should be a whole number'),
        ("data: [a]\nnum_steps: 2.5\n", "c.yaml:2: num_steps: is 2.5; should be a whole number"),
        ("data: [a]\nnum_steps: true\n", "c.yaml:2: num_steps: is true; should be a whole number"),
        ("data: [a]\nnum_steps:\n", "c.yaml:2: num_steps: is empty; should be a whole number"),
        ("data: [a]\nlabel: 3\n", "c.yaml:2: label: is 3; should be text"),
        ("data: [a, 3]\n", "c.yaml:1: data[1]: is 3; should be text"),
        ("data: a\n", 'c.yaml:1: data: is "a"; should be a list'),
        ("data: [a]\nskip_bad: yes\n", 'c.yaml:2: skip_bad: is "yes"; should be true or false'),
        ("data: [a]\noptimizer:\n  lr: -1\n", "c.yaml:3: optimizer.lr: is -1; should be greater than 0"),
        ("data: [a]\noptimizer: 3\n", "c.yaml:2: optimizer: is 3; should be a section of keys"),
        ("data: [a]\nloss: dpoo\n", "c.yaml:2: loss: is \"dpoo\"; should be one of 'dpo', 'ipo'"),
        ("data: [a]\nsize: 2.5\n", "c.yaml:2: size: is 2.5; should be a whole number or text"),
        ("data: [a]\nlabel: {x: 1}\n", "c.yaml:2: label: is a section of keys; should be text"),
        ("data: [a]\noptimizer: {lr: {x: 1}}\n", "c.yaml:2: optimizer.lr: is a section of keys; should be a number"),
        ("data: {a: 1}\n", "c.yaml:1: data: is a section of keys; should be a list"),
        ("data: [a]\nfloors: {truth: high}\n", 'c.yaml:2: floors.truth: is "high"; should be a number'),
        ("data: [a]\nnum_steps: 1001\n", "c.yaml: num_steps above 1000 needs a limit"),
        ("data: [a]\ndata: [b]\n", "c.yaml:2: data: this key stands already in line 1; keep one of the two"),
        ("optimizer:\n  lr: 1\n  lr: 2\n", "c.yaml:3: optimizer.lr: this key stands already in line 2"),
        ("data: [a\n", "c.yaml:2: broken YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("data: " + "[" * 5000, "c.yaml: nested too deeply; settings are a few levels deep"),
        ("- data\n", "c.yaml:1: must hold `key: value` lines"),
        ("a: &x 1\nb: *x\n", "c.yaml:1: broken YAML: anchors and aliases are not supported"),
        ("data: [a]\nlabel: !!python/name:os.system\n", "c.yaml:2: broken YAML: the tag"),
        ("? [a]\n: 1\n", "c.yaml:1: a key must be plain text"),
        ("data: [a]\n---\ndata: [b]\n", "c.yaml:2: broken YAML: expected a single document"),
        ("\x00", "c.yaml: broken YAML: special characters are not allowed"),
        ("num_steps: 3\n", "--data: is required; give --data VALUE, or put `data: ...` into c.yaml"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(yaml_file: Any, text: str, line: str) -> None:
    assert failure(yaml_file(text)).startswith(line)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"optimizer.lr": "fast"}, '--optimizer.lr: is "fast"; should be a number'),
        ({"optimizer.lr": "0"}, "--optimizer.lr: is 0; should be greater than 0"),
        ({"optimizer.lrr": "1"}, "--optimizer.lrr: unknown setting; did you mean lr?"),
        ({"skip_bad": "perhaps"}, '--skip-bad: is "perhaps"; should be true or false'),
        ({"num_steps": ["1", "2"]}, '--num-steps: is ["1", "2"]; should be a whole number'),
        ({"num_steps": "1001"}, "num_steps above 1000 needs a limit"),
        ({"data": ["none"], "limit": ["1", "2"]}, '--limit: is ["1", "2"]; should be a whole number'),
        ({"code": "a"}, '--code: is "a"; should be text of at least 2 characters'),
        ({"code": "A1"}, '--code: is "A1"; should be text that matches ^[a-z]+$'),
        ({"share": "inf"}, "--share: is Infinity; should be a finite number"),
        ({"mode": "c"}, "--mode: is \"c\"; should be one of 'a', 'b'"),
        ({"label": ["x" * 100, "y"]}, f'--label: is ["{"x" * 55}...; should be text'),
        ({"floors": ["truth"]}, "--floors: is empty; should be a number"),
        ({"optimizer.betas": ["1"]}, "--optimizer.betas: is [1]; should be more values"),
        ({"optimizer.betas": ["1", "2", "3"]}, '--optimizer.betas: is [1, 2, "3"]; should be at most 2 values'),
        ({"data": []}, "--data: is []; should be at least 1 values"),
    ],
)
def test_what_is_wrong_in_a_flag_is_said_with_the_flag(overrides: Mapping[str, str | list[str]], line: str) -> None:
    assert failure(overrides={"data": ["d"], **overrides}).startswith(line)


def test_an_empty_flag_is_a_shell_variable_that_is_not_set(yaml_file: Any) -> None:
    for overrides, flag in (({"out": ""}, "--out"), ({"data": ["a", ""]}, "--data"), ({"sources": ""}, "--sources")):
        assert failure(overrides={"data": ["a"], **overrides}) == f"{flag}: is empty; give a value, or leave it out"
    assert load(Config, overrides={"data": ["a"], "label": ""}).label == ""
    assert load(Config, yaml_path=yaml_file("data: [a]\nmode: a\nout: ''\n")).out == ""


def test_text_that_utf8_cannot_hold(yaml_file: Any) -> None:
    # What Python makes of the byte 0xff on a command line; and half of a character, by its number.
    assert failure(overrides={"data": ["b", "\udcff.jsonl"]}) == (
        "--data: is '\\udcff.jsonl', which UTF-8 cannot hold; rename the file, or correct the text"
    )
    assert failure(yaml_file('data: [a]\nlabel: "\\ud83d"\n')) == (
        "c.yaml:2: label: is '\\ud83d', which UTF-8 cannot hold; rename the file, or correct the text"
    )


def test_a_flag_over_a_bad_value_is_blamed_for_itself_only(yaml_file: Any) -> None:
    path = yaml_file("data: [a]\noptimizer:\n  lr: fast\n")
    assert load(Config, yaml_path=path, overrides={"optimizer.lr": "1"}).optimizer.lr == 1.0
    path = yaml_file("data: [a]\noptimizer:\n  lr: 1\n")
    assert failure(path, {"optimizer.lr": "fast"}) == '--optimizer.lr: is "fast"; should be a number'
    assert failure(path, {"optimizer.warmup_fraction": "x"}).startswith("--optimizer.warmup-fraction: is")
    path = yaml_file("data: [a]\noptimizer: 3\n")
    assert failure(path, {"optimizer.lr": "1"}) == "c.yaml:2: optimizer: is 3; should be a section of keys"


def test_all_missing_flags_are_named_at_once() -> None:
    class Two(Section):
        first: str
        """One."""
        second_one: str
        """Two."""

    with pytest.raises(InputError) as caught:
        load(Two)
    assert str(caught.value) == "--first: is required, and so is --second-one; give --first VALUE"


def test_a_misspelt_required_key_is_called_misspelt_not_missing() -> None:
    with pytest.raises(InputError, match="unknown setting; did you mean data"):
        load(Config, overrides={"dataa": "x"})


def test_origins_replace_the_flag_in_messages() -> None:
    with pytest.raises(InputError) as caught:
        load(Config, overrides={"data": ["d"], "num_steps": "x"}, origins={"num_steps": "STEPS"})
    assert str(caught.value) == 'STEPS: is "x"; should be a whole number'


@pytest.mark.parametrize(
    ("name", "problem"), [("none.yaml", "no such file"), ("file/c.yaml", "no such file"), (".", "is a directory")]
)
def test_unreadable_files(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=problem):
        load(Config, yaml_path=tmp_path / name)


def test_a_file_that_may_not_be_read(yaml_file: Any, monkeypatch: Any) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    path = yaml_file("data: [a]\n")
    # Not by chmod: the superuser, who runs the tests in some places, may read everything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert failure(path) == "c.yaml: may not be read; change its permissions"


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"label: \xff")
    assert failure(tmp_path / "c.yaml") == "c.yaml: is not UTF-8 text (byte 7)"


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config(data=("a",)).num_steps = 3


def test_dump_holds_the_defaults_and_loads_back(yaml_file: Any) -> None:
    config = Config(data=("a",), optimizer=Optimizer(lr=1e-4), label="1e-4", size="yes", model=Path("m"))
    text = dump_yaml(config)
    assert yaml.safe_load(text)["num_steps"] == 10
    assert load(Config, yaml_path=yaml_file(text)) == config


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufeff"))


class Leaf(Section):
    label: str
    """Text."""
    number: float
    """Number."""
    items: tuple[str, ...]
    """Texts."""


@given(
    texts, st.floats(allow_nan=False), st.lists(st.sampled_from(["1e-4", "no", "null", "~", "", ".5", "1_0", "0o7"]))
)
def test_every_value_survives_the_dump(tmp_path_factory: Any, label: str, number: float, items: list[str]) -> None:
    config = Leaf(label=label, number=number, items=tuple(items))
    path = tmp_path_factory.mktemp("dump") / "c.yaml"
    path.write_bytes(dump_yaml(config).encode())
    assert load(Leaf, yaml_path=path) == config


def test_hash_is_of_the_values_alone() -> None:
    config = Config(data=("a",))
    assert config_hash(config) == config_hash(Config(data=("a",), out="elsewhere", num_steps=10))
    assert config_hash(config) != config_hash(Config(data=("a",), num_steps=11))
    assert config_hash(config) != config_hash(config, exclude=())
    assert config_hash(config, exclude=("out", "num_steps")) == config_hash(
        Config(data=("a",), num_steps=11), exclude=("out", "num_steps")
    )
    expected = hashlib.sha256(b'{"rank":8}').hexdigest()
    assert config_hash(Adapter()) == expected


def test_differing_keys_go_into_sections_and_count_absent_keys() -> None:
    a = {"x": 1, "same": [1, 2], "s": {"p": 1, "q": {"r": 1}}, "only_a": None}
    b = {"x": 2, "same": [1, 2], "s": {"p": 1, "q": {"r": 2, "t": 0}}, "mixed": {}}
    assert differing_keys(a, b) == ["mixed", "only_a", "s.q.r", "s.q.t", "x"]
    assert differing_keys(a, a) == []
    assert differing_keys({"k": {"i": 1}}, {"k": 3}) == ["k"]


def test_yaml_numbers(yaml_file: Any) -> None:
    tree = read_yaml(
        yaml_file("a: 1e-4\nb: .5\nc: -3\nd: -.inf\ne: .nan\nf: 1:30\ng: 2026-11-24\nh: 010\ni: 0.\n")
    ).tree
    assert math.isnan(tree.pop("e"))
    assert tree == {"a": 1e-4, "b": 0.5, "c": -3, "d": -math.inf, "f": "1:30", "g": "2026-11-24", "h": 10, "i": 0.0}


def test_an_empty_file_gives_the_defaults(yaml_file: Any) -> None:
    assert load(Adapter, yaml_path=yaml_file("# nothing\n")) == Adapter()


def test_fields_are_listed_with_types_and_defaults() -> None:
    rows = {
        field.key: (type_label(field.annotation, field.info.metadata), field.default) for field in fields_of(Config)
    }
    assert list(rows)[-4:] == ["optimizer.lr", "optimizer.warmup_fraction", "optimizer.betas", "adapter.rank"]
    assert rows["optimizer.lr"] == ("number > 0", "1e-05")
    assert rows["optimizer.betas"] == ("number number", "0.9 0.95")
    assert rows["data"] == ("text...", "")
    assert rows["loss"] == ("dpo|ipo", "dpo")
    assert rows["model"] == ("path or none", "none")
    assert rows["floors"] == ("name=number...", "(empty)")
    assert rows["skip_bad"] == ("true|false", "false")
    assert rows["limit"] == ("whole number > 0 or none", "none")
    assert rows["label"] == ("text", '""')
    assert rows["size"] == ("whole number or text", "auto")


class Inner(Section):
    a: int = 1
    b: int = 2


class Outer(Section):
    inner: Inner = Inner(a=10)
    c: int = 3


class Tuned(Section):
    """Changes defaults of sections two levels down."""

    outer: Outer = Outer(inner=Inner(a=100, b=200), c=300)
    plain: Outer = Outer()


def test_the_flags_that_make_a_config_are_those_that_were_given() -> None:
    from prefloop.flags import parse

    class Given(Section):
        optimizer: Optimizer = Optimizer(lr=1e-4)
        adapter: Adapter | None = None
        who: str = ""
        quiet: bool = False

    made = load(Given, overrides={"optimizer.lr": "1e-3", "optimizer.betas": ["0.5", "0.75"], "who": "Ada L."})
    optimizer = ["--optimizer.lr", "0.001", "--optimizer.betas", "0.5", "0.75"]
    assert given_words(made) == ["--who", "Ada L.", *optimizer]
    assert given_words(made, leave_out=["who"]) == optimizer
    assert load(Given, overrides=parse(given_words(made), Given, command="x").overrides) == made
    assert given_words(load(Given)) == []


def test_setting_one_key_of_a_section_keeps_the_defaults_that_the_field_gives_it(yaml_file: Any) -> None:
    assert load(Tuned) == Tuned()
    tuned = load(Tuned, overrides={"outer.inner.b": "7"})
    assert tuned.outer == Outer(inner=Inner(a=100, b=7), c=300)
    assert load(Tuned, yaml_path=yaml_file("outer: {inner: {b: 7}}\n")) == tuned
    assert load(Tuned, overrides={"plain.inner.b": "7"}).plain == Outer(inner=Inner(a=10, b=7), c=3)
    defaults = {field.key: field.default for field in fields_of(Tuned)}
    assert defaults == {
        "outer.c": "300",
        "outer.inner.a": "100",
        "outer.inner.b": "200",
        "plain.c": "3",
        "plain.inner.a": "10",
        "plain.inner.b": "2",
    }


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    assert unknown_name("ppoo", ["ppo", "rloo"]) == "did you mean ppo? known: ppo, rloo"
    assert unknown_name("zzz", ["ppo", "rloo"]) == "known: ppo, rloo"

"""Write docs/commands/: one page per group of commands, from the config classes that `--help` shows.

Run `python docs/make_commands.py` after changing a command or a setting; a test fails while the pages are stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from prefloop.cli import COMMANDS, Command, config_class, find
from prefloop.flags import ALWAYS, HelpSection, flag_of, help_sections

FOLDER = Path(__file__).parent / "commands"
NOTICE = "<!-- Written by docs/make_commands.py. Change the command or its config class instead. -->"
EXIT_CODES = {
    0: "done (a stop at the KL budget is done; `stopped` in the answer says why)",
    1: "the answer is no: a gate or an audit refused",
    2: "bad input, said in one line: `file:line: field: what is wrong; what would be right`",
    3: "stopped by the environment (disk full, reward server away); the same command goes on",
    70: "a bug in prefloop",
    130: "interrupted; the same command goes on",
}


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    groups: dict[str, list[str]] = {}
    for name in COMMANDS:
        groups.setdefault(name.split()[0], []).append(name)
    made = {
        f"{group}.md": "\n".join([NOTICE, "", f"# prefloop {group}", *_group(names)]) for group, names in groups.items()
    }
    return {"README.md": "\n".join([NOTICE, "", *_index(groups)]), **made}


def _index(groups: dict[str, list[str]]) -> Iterator[str]:
    yield "# Commands\n"
    yield "| command | does |\n| --- | --- |"
    for group, names in groups.items():
        for name in names:
            yield f"| [`prefloop {name}`]({group}.md#{_anchor(name)}) | {COMMANDS[name].summary} |"
    yield "\nEvery command also takes:\n"
    yield "| flag | meaning |\n| --- | --- |"
    for flag, doc in ALWAYS.items():
        yield f"| `{flag}` | {doc} |"
    yield "\nExit codes:\n"
    yield "| code | meaning |\n| --- | --- |"
    for code, meaning in EXIT_CODES.items():
        yield f"| {code} | {meaning} |"
    yield (
        "\nA setting is given as a flag (`--optimizer.lr 1e-4`), or in the file of `--config` (`optimizer:` and below"
        " it `lr: 1e-4`); flags go on top of the file. `none` empties a setting that may be empty, a switch is turned"
        " off with `--no-`, and a setting that takes several values takes all words up to the next flag.\n"
    )


def _group(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        command = COMMANDS[name]
        model, _ = config_class(name, command, [])
        about = " ".join((model.__doc__ or "").split())
        yield f"\n## prefloop {name}\n\n{command.summary}\n"
        if about and about != command.summary:
            yield f"{about}\n"
        yield f"```\n{command.example}\n```"
        sections = help_sections(model, command.positionals)
        yield from _tables(sections)
        if command.variant and command.variants:
            yield from _other_variants(name, command, sections)
    yield ""


def _other_variants(name: str, command: Command, default: Sequence[HelpSection]) -> Iterator[str]:
    """The sections in which another variant differs from the default one."""
    flag = flag_of(command.variant or "")
    for variant in find(command.variants or ""):
        model, _ = config_class(name, command, [flag, variant])
        differing = [section for section in help_sections(model, command.positionals) if section not in default]
        if differing:
            yield f"\nWith `{flag} {variant}`:"
            yield from _tables(differing)


def _tables(sections: Sequence[HelpSection]) -> Iterator[str]:
    for section in sections:
        if section.title:
            yield f"\n`{section.title}`: {section.doc}"
        yield "\n| setting | type | default | meaning |\n| --- | --- | --- | --- |"
        for row in section.rows:
            default = "required" if row.required else f"`{row.default}`"
            yield f"| `{row.flag}` | {_cell(row.type)} | {_cell(default)} | {_cell(row.doc)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _anchor(name: str) -> str:
    return f"prefloop-{name.replace(' ', '-')}"


def write() -> None:
    """Write all pages, and remove those of commands that are gone."""
    FOLDER.mkdir(exist_ok=True)
    made = pages()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.md"):
        if path.name not in made:
            path.unlink()


if __name__ == "__main__":
    write()

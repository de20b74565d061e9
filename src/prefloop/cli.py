"""`prefloop WORDS... [FLAGS]`: one visible dict from words to commands; this module only finds, runs and reports.

Nothing but the config's module is imported for `--help` and for checking the settings, and nothing that needs torch.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import itertools
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, TextIO

from prefloop.types import EnvironmentStop, InputError, Refusal, RunResult, Told

DONE, REFUSED, BAD_INPUT, STOPPED, BUG, INTERRUPTED = 0, 1, 2, 3, 70, 130
READER_GONE = 128 + signal.SIGPIPE
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
"""What the system says of a path that a user should not have given, wherever the path is used first."""


@dataclass(frozen=True)
class Command:
    """One command. `config` and `run` are `module:name`."""

    config: str
    """A config class, or with `variant` a function from the variant's name (None: the default) to a config class."""
    run: str
    """A function from the config to its answer: a mapping, a RunResult, or what is told."""
    summary: str
    example: str
    positionals: tuple[str, ...] = ()
    """Settings that words without a flag give, in order."""
    variant: str | None = None
    """The setting that picks the config class, for example "algorithm"."""
    variants: str | None = None
    """`module:name` of the names it can have, for help and documentation."""


COMMANDS: dict[str, Command] = {
    "demo": Command(
        config="prefloop.recipes.config:DemoConfig",
        run="prefloop.recipes.demo:run",
        summary="The whole loop in the simulated world, offline, ending in a report.",
        example="prefloop demo --out runs/demo",
    ),
    "doctor": Command(
        config="prefloop.recipes.config:DoctorConfig",
        run="prefloop.recipes.doctor:run",
        summary="What this machine has and lacks; with a model, the start-up checks on it.",
        example="prefloop doctor --model runs/sft",
    ),
    "data check": Command(
        config="prefloop.data.config:DataCheckConfig",
        run="prefloop.data.commands:check",
        summary="Validate a data file and say what is in it.",
        example="prefloop data check pairs.jsonl",
        positionals=("file",),
    ),
    "data convert": Command(
        config="prefloop.data.config:DataConvertConfig",
        run="prefloop.data.commands:convert",
        summary="Convert a data file to the standard columns of another kind.",
        example="prefloop data convert pairs.jsonl --to demonstrations --out demonstrations.jsonl",
        positionals=("file",),
    ),
    "data split": Command(
        config="prefloop.data.config:DataSplitConfig",
        run="prefloop.data.commands:split",
        summary="Split a data file by prompt.",
        example="prefloop data split pairs.jsonl --eval-fraction 0.1 --out split",
        positionals=("file",),
    ),
    "data balance": Command(
        config="prefloop.audit.config:DataBalanceConfig",
        run="prefloop.audit.balance:balance",
        summary="Write a preference file without what an audit found against it.",
        example="prefloop data balance pairs.jsonl --signals length citation --drop duplicates --out balanced.jsonl",
        positionals=("file",),
    ),
    "train sft": Command(
        config="prefloop.train.config:SFTConfig",
        run="prefloop.train.sft:train",
        summary="Fine-tune a language model on demonstrations.",
        example="prefloop train sft --data demonstrations.jsonl --out runs/sft",
    ),
    "train reward": Command(
        config="prefloop.train.config:RewardConfig",
        run="prefloop.train.reward:train",
        summary="Train a reward model on preference pairs.",
        example="prefloop train reward --model runs/sft --data pairs.jsonl --out runs/reward",
    ),
    "train preference": Command(
        config="prefloop.train.config:preference_config",
        run="prefloop.train.preference:train",
        summary="Tune a policy on preference pairs or labelled responses, without a reward model.",
        example="prefloop train preference --model runs/sft --data pairs.jsonl --out runs/dpo",
        variant="loss",
        variants="prefloop.train.preference_losses:LOSSES",
    ),
    "train policy": Command(
        config="prefloop.recipes.tune_config:watched_policy_config",
        run="prefloop.recipes.tune:policy",
        summary="Tune a policy against a reward model, held near a reference.",
        example="prefloop train policy --model runs/sft --reward runs/reward --prompts prompts.jsonl --out runs/ppo",
        variant="algorithm",
        variants="prefloop.train.algorithms:ALGORITHMS",
    ),
    "reward eval": Command(
        config="prefloop.reward.config:RewardEvalConfig",
        run="prefloop.reward.evaluate:evaluate",
        summary="Accuracy of a reward model on preference pairs, beside its baselines.",
        example="prefloop reward eval runs/reward held-out.jsonl",
        positionals=("model", "data"),
    ),
    "reward score": Command(
        config="prefloop.reward.config:RewardScoreConfig",
        run="prefloop.reward.evaluate:score",
        summary="Score responses, as JSON Lines.",
        example="prefloop reward score runs/reward responses.jsonl --out scores.jsonl",
        positionals=("model", "data"),
    ),
    "reward serve": Command(
        config="prefloop.reward.config:RewardServeConfig",
        run="prefloop.reward.serve:serve",
        summary="Answer scores over HTTP, to prefloop and to OpenRLHF.",
        example="prefloop reward serve runs/reward --port 8900",
        positionals=("model",),
    ),
    "reward crossval": Command(
        config="prefloop.recipes.config:RewardCrossvalConfig",
        run="prefloop.recipes.crossval:run",
        summary="Cross-validate a reward model by prompt: accuracy over all pairs, beside its baselines.",
        example="prefloop reward crossval --model runs/sft --data pairs.jsonl --out runs/crossval",
    ),
    "audit data": Command(
        config="prefloop.audit.config:AuditDataConfig",
        run="prefloop.recipes.audit:data",
        summary="Say whether preference data is fit to be optimised against.",
        example="prefloop audit data pairs.jsonl --html audit.html",
        positionals=("file",),
    ),
    "audit reward": Command(
        config="prefloop.audit.config:AuditRewardConfig",
        run="prefloop.recipes.audit_reward:reward",
        summary="Say whether a reward model is fit to be optimised against.",
        example="prefloop audit reward runs/reward held-out.jsonl --html audit.html",
        positionals=("model", "file"),
    ),
    "monitor": Command(
        config="prefloop.monitor.config:MonitorConfig",
        run="prefloop.recipes.monitor:run",
        summary="The signals and alarms of a rollout log.",
        example="prefloop monitor runs/ppo/rollouts/rollouts.jsonl --html monitor.html",
        positionals=("file",),
    ),
    "sample": Command(
        config="prefloop.rollout.config:SampleConfig",
        run="prefloop.rollout.respond:run",
        summary="Sample responses of a policy to prompts, as JSON Lines.",
        example="prefloop sample runs/ppo prompts.jsonl --out responses.jsonl",
        positionals=("model", "prompts"),
    ),
    "evaluate winrate": Command(
        config="prefloop.evaluate.config:WinrateConfig",
        run="prefloop.evaluate.winrate:run",
        summary="Win rate of judged rows, and what it would be at equal lengths.",
        example="prefloop evaluate winrate annotations.json",
        positionals=("file",),
    ),
    "evaluate overoptimization": Command(
        config="prefloop.evaluate.config:OveroptimizationConfig",
        run="prefloop.evaluate.overoptimization:run",
        summary="Whether gold still rises while the proxy is optimised.",
        example="prefloop evaluate overoptimization scored.jsonl",
        positionals=("file",),
    ),
    "evaluate budget": Command(
        config="prefloop.evaluate.config:BudgetConfig",
        run="prefloop.evaluate.budget:run",
        summary="A KL budget from short runs and held-out evidence.",
        example="prefloop evaluate budget --runs runs/short-1 runs/short-2 runs/short-3",
        positionals=("file",),
    ),
    "evaluate run": Command(
        config="prefloop.evaluate.config:EvaluateRunConfig",
        run="prefloop.evaluate.run:run",
        summary="Evidence about a model beside the one in use, for a gate.",
        example="prefloop evaluate run runs/ppo --against runs/sft --prompts held-out.jsonl --judge runs/other-reward",
        positionals=("candidate",),
    ),
    "review list": Command(
        config="prefloop.recipes.review_config:ReviewListConfig",
        run="prefloop.recipes.review:list_suspicious",
        summary="The most suspicious responses of a rollout log.",
        example="prefloop review list runs/ppo",
        positionals=("log",),
    ),
    "review export": Command(
        config="prefloop.recipes.review_config:ReviewExportConfig",
        run="prefloop.recipes.review:export",
        summary="Write a queue for people to read: suspicious responses and a slice by lot.",
        example="prefloop review export runs/ppo --out queue.jsonl",
        positionals=("log",),
    ),
    "review precision": Command(
        config="prefloop.review.config:ReviewPrecisionConfig",
        run="prefloop.review.precision:run",
        summary="What people found in a queue: precision, hack rate, what was missed.",
        example="prefloop review precision queue.jsonl verdicts.jsonl",
        positionals=("queue", "verdicts"),
    ),
    "model register": Command(
        config="prefloop.registry.config:RegisterConfig",
        run="prefloop.registry.register:register",
        summary="Copy a model into the registry, as a new version.",
        example="prefloop model register runs/ppo --name helper",
        positionals=("model",),
    ),
    "model list": Command(
        config="prefloop.registry.config:ListConfig",
        run="prefloop.registry.look:list_versions",
        summary="List the registered versions, and say which is live.",
        example="prefloop model list",
    ),
    "model gate": Command(
        config="prefloop.gate.config:ModelGateConfig",
        run="prefloop.recipes.gate:gate",
        summary="Say from evidence whether a candidate may go live: promote, hold or roll back.",
        example="prefloop model gate helper:2 --evidence evaluations.jsonl",
        positionals=("candidate",),
    ),
    "model promote": Command(
        config="prefloop.registry.config:PromoteConfig",
        run="prefloop.registry.switch:promote",
        summary="Make a version live, as a gate's decision allows.",
        example="prefloop model promote helper:2",
        positionals=("version",),
    ),
    "model rollback": Command(
        config="prefloop.registry.config:RollbackConfig",
        run="prefloop.registry.switch:rollback",
        summary="Make what was live before live again, byte for byte.",
        example='prefloop model rollback --why "answers got longer"',
    ),
    "model history": Command(
        config="prefloop.registry.config:HistoryConfig",
        run="prefloop.registry.look:history",
        summary="Show the ledger: what happened when, by whom and why.",
        example="prefloop model history",
    ),
    "model verify": Command(
        config="prefloop.registry.config:VerifyConfig",
        run="prefloop.registry.look:verify",
        summary="Check that nobody changed the ledger or the weights.",
        example="prefloop model verify",
    ),
    "model interpolate": Command(
        config="prefloop.train.config:InterpolateConfig",
        run="prefloop.train.interpolate:run",
        summary="Write the model whose weights lie between two others.",
        example="prefloop model interpolate runs/sft runs/ppo --weight 0.5 --out runs/half",
        positionals=("base", "tuned"),
    ),
    "label import": Command(
        config="prefloop.label.config:ImportConfig",
        run="prefloop.label.commands:import_file",
        summary="Put questions for people into the labelling database.",
        example="prefloop label import comparisons.jsonl --database label.sqlite",
        positionals=("file",),
    ),
    "label invite": Command(
        config="prefloop.label.config:InviteConfig",
        run="prefloop.label.commands:invite",
        summary="Invite somebody to vote: a token that works once.",
        example='prefloop label invite "Ann Lee" --role annotator',
        positionals=("name",),
    ),
    "label backup": Command(
        config="prefloop.label.config:BackupConfig",
        run="prefloop.label.commands:backup",
        summary="Copy the labelling database while people work.",
        example="prefloop label backup --out backups/label-monday.sqlite",
    ),
    "label serve": Command(
        config="prefloop.app.config:LabelServeConfig",
        run="prefloop.app.serve:serve",
        summary="Let people judge pairs and review responses, in their browsers.",
        example="prefloop label serve --database label.sqlite",
    ),
    "label stats": Command(
        config="prefloop.recipes.label_config:LabelStatsConfig",
        run="prefloop.recipes.label_stats:stats",
        summary="Say how good the votes are, and what to adjudicate.",
        example="prefloop label stats --html stats.html",
    ),
    "label export": Command(
        config="prefloop.recipes.label_config:LabelExportConfig",
        run="prefloop.recipes.label_export:export",
        summary="Make audited preference pairs of the votes, and keep every vote.",
        example="prefloop label export --out pairs.jsonl --votes votes.jsonl",
    ),
    "label judge": Command(
        config="prefloop.recipes.label_config:LabelJudgeConfig",
        run="prefloop.recipes.label_judge:judge",
        summary="Let a judge model vote as one more annotator.",
        example="prefloop label judge http://localhost:8000/v1 --endpoint.model judge-7b",
        positionals=("judge",),
    ),
    "sandbox list": Command(
        config="prefloop.recipes.config:SandboxListConfig",
        run="prefloop.recipes.scenario:list_scenarios",
        summary="List the scenarios of the simulated world.",
        example="prefloop sandbox list",
    ),
    "sandbox run": Command(
        config="prefloop.recipes.config:SandboxConfig",
        run="prefloop.recipes.scenario:run",
        summary="One scenario of the simulated world: unguarded and guarded, with the truth beside the proxy.",
        example="prefloop sandbox run citation --out runs/citation",
        positionals=("scenario",),
    ),
    "sandbox table": Command(
        config="prefloop.recipes.table_config:TableConfig",
        run="prefloop.recipes.table:run",
        summary="Every scenario over several seeds: failure, audit, alarm, guard, remedy, and true utility.",
        example="prefloop sandbox table --quick --out runs/table",
    ),
    "round run": Command(
        config="prefloop.recipes.round_config:round_config",
        run="prefloop.recipes.round:command",
        summary="One whole round: sample, judge, measure the shift, retrain, and tune from the last good policy.",
        example="prefloop round run --policy runs/ppo --incumbent runs/sft --reward runs/reward --pairs pairs.jsonl "
        "--prompts prompts.jsonl --out runs/round-2",
        variant="algorithm",
        variants="prefloop.train.algorithms:ALGORITHMS",
    ),
    "round status": Command(
        config="prefloop.recipes.round_config:RoundStatusConfig",
        run="prefloop.recipes.round_status:status",
        summary="Where a round stands: what is done, what it says, and what comes next.",
        example="prefloop round status runs/round-2",
        positionals=("run",),
    ),
    "report": Command(
        config="prefloop.report.config:ReportConfig",
        run="prefloop.recipes.report:make",
        summary="Write the HTML report of a run.",
        example="prefloop report runs/ppo",
        positionals=("run",),
    ),
}


def entry() -> None:
    """The `prefloop` program."""
    signal.signal(signal.SIGTERM, _interrupt)
    # JSON is UTF-8 whatever the locale, and what people wrote has letters that the locale may not know.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code: 0 done, 1 the answer is no, 2 bad input, 3 stopped, 70 bug, 130
    interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words)
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except Refusal as error:
        print(f"refused: {error}", file=sys.stderr)
        return REFUSED
    except EnvironmentStop as error:
        print(f"stopped: {error}; run the same command again to go on", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if _reader_is_gone(sys.stdout) or _reader_is_gone(sys.stderr):
            return _leave_quietly()
        return _report_bug()
    except OSError as error:
        if error.errno in DISK_FULL:
            where = f" at {error.filename}" if error.filename else ""
            print(f"stopped: disk full{where}; make room and run the same command again to go on", file=sys.stderr)
            return STOPPED
        if error.errno in UNUSABLE and error.filename is not None:
            remedy = "change its permissions, or give another path"
            problem = os.strerror(error.errno).lower()
            print(InputError(problem, path=os.fsdecode(error.filename), remedy=remedy), file=sys.stderr)
            return BAD_INPUT
        return _report_bug()
    except Exception:
        return _report_bug()


def _dispatch(words: list[str]) -> int:
    name, rest = split_words(words)
    if name is None:
        return _without_command(words)
    command = COMMANDS[name]
    from prefloop.config import load
    from prefloop.flags import help_text, parse

    model, note = config_class(name, command, rest)
    given = parse(rest, model, command.positionals, command=name)
    if given.help:
        text = help_text(
            name, model, summary=command.summary, example=command.example, positionals=command.positionals, note=note
        )
        return _answer(text.rstrip("\n"))
    config = load(model, yaml_path=given.config, overrides=given.overrides, origins=given.origins)
    # Whatever else is printed, by us or by a library, must not mix with the answer.
    with contextlib.redirect_stdout(sys.stderr):
        with _interrupts_wait():
            run = find(command.run)
        result: Mapping[str, Any] | RunResult | Told = run(config)
        from prefloop.answer import as_json, as_text

        if isinstance(result, Told):
            text = as_json(result.values) if given.json else result.text
        else:
            text = as_json(result) if given.json else as_text(result)
    _answer(text)
    return REFUSED if isinstance(result, Told) and result.refused else DONE


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The longest command that the first words name, or None, and the words after it."""
    for length in range(min(len(words), max((len(name.split()) for name in COMMANDS), default=0)), 0, -1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return name, list(words[length:])
    return None, list(words)


def config_class(name: str, command: Command, words: Sequence[str]) -> tuple[Any, str]:
    """The config class of a command line, and what its help says of the variant."""
    if command.variant is None:
        return find(command.config), ""
    from prefloop.flags import flag_of, value_of

    variant = value_of(words, command.variant)
    path = value_of(words, "config")
    if variant is None and path is not None:
        from prefloop.yaml_tree import read_yaml

        in_file = read_yaml(path).tree.get(command.variant)
        # Anything else than text is refused with the rest of the file, by the default variant's config class.
        variant = in_file if isinstance(in_file, str) else None
    flag = flag_of(command.variant)
    model = find(command.config)(variant)
    chosen = variant or model.model_fields[command.variant].default
    others = [known for known in find(command.variants) if known != chosen] if command.variants else []
    more = f" For others: `prefloop {name} {flag} {'|'.join(others)} --help`." if others else ""
    return model, f"The settings depend on {flag}; these are for {chosen}.{more}"


def find(reference: str) -> Any:
    """The object that `module:name` refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _without_command(words: Sequence[str]) -> int:
    """Answer a command line that names no command: with a list of commands, or with what might have been meant."""
    if words in ([], ["--help"], ["-h"], ["help"]):
        return _answer(_listing(COMMANDS))
    if words == ["--version"]:
        from prefloop import __version__

        return _answer(__version__)
    named = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), words))
    group = {name: command for name, command in COMMANDS.items() if name.startswith(f"{named} ")}
    if group and words in ([named], [named, "--help"], [named, "-h"]):
        return _answer(_listing(group))
    from prefloop.config import nearest

    if group:
        raise InputError(f"`prefloop {named}` is not a whole command", remedy=f"one of {', '.join(group)}")
    typed = " ".join(words[: max((len(name.split()) for name in COMMANDS), default=1)])
    close = nearest(typed, COMMANDS.keys()) or nearest(words[0], COMMANDS.keys())
    meant = f"did you mean `prefloop {close}`? " if close else ""
    raise InputError(f"unknown command: {typed}", remedy=f"{meant}`prefloop --help` lists all")


def _listing(commands: Mapping[str, Command]) -> str:
    width = max((len(name) for name in commands), default=0)
    lines = ["usage: prefloop COMMAND [FLAGS], `prefloop COMMAND --help` for one command"]
    group = ""
    for name, command in commands.items():
        if name.split()[0] != group:
            group = name.split()[0]
            lines.append("")
        lines.append(f"  {name:<{width}}  {command.summary}")
    return "\n".join(lines)


def _answer(text: str) -> int:
    print(text, flush=True)
    return DONE


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Hold signals back while modules load: some libraries swallow an interrupt there, and what they were loading stays
    broken."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _report_bug() -> int:
    # Only a bug needs it, and it is slow to import.
    import traceback

    traceback.print_exc()
    print("this is a bug; please report it at the project's issue tracker with the lines above", file=sys.stderr)
    return BUG


def _reader_is_gone(stream: TextIO) -> bool:
    """Whether what reads our output (`| head`) has closed it. A broken pipe elsewhere is another matter."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def _leave_quietly() -> int:
    """Point the closed streams elsewhere, so that the interpreter's last flush does not complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _reader_is_gone(stream):
            os.dup2(nowhere, stream.fileno())
    return READER_GONE

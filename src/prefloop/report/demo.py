"""The page of the demo: what happened, the evidence, and what it teaches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from prefloop.report import demo_text, figures
from prefloop.report.demo_run import DemoRun, load_demo
from prefloop.report.demo_text import POLICY_NAMES
from prefloop.report.examples import hacked_examples, misled_share
from prefloop.report.figures import COLORS, Drift, Line, Mark
from prefloop.report.metrics import METRIC_NAMES, Metrics, metric_plot, read_metrics
from prefloop.report.page import (
    Answer,
    Block,
    Exchange,
    Fold,
    PageSection,
    Plot,
    Plots,
    Points,
    Prose,
    Table,
    Terms,
    render_page,
)
from prefloop.report.records import read_result
from prefloop.report.wording import count, duration, memory, number, percent, plain, short_difference

NUM_EXAMPLES = 6
NUM_PARTS = 9
EXAMPLE_POLICIES = ("sft", "tuned", "hacked", "guarded")
STAGE_GROUPS: Mapping[str, Mapping[str, str]] = {
    "Imitation": {"SFT": "sft"},
    "Reward models": {"honest": "reward-honest", "biased": "reward-biased"},
    "Policies": {"tuned": "tuned", "hacked": "hacked", "guarded": "guarded"},
}
AUDIT_VERDICTS = {"pass": "pass", "warn": "look before you train", "block": "do not train on it"}
STAGE_COLORS = {**COLORS, "SFT": COLORS["sft"], "honest": COLORS["tuned"], "biased": COLORS["hacked"]}


def render_demo(run_dir: Path) -> str:
    """The demo's report as one HTML string. Raises InputError if the directory is not a finished demo's."""
    demo = load_demo(run_dir, read_result(run_dir))
    answer = demo.answer
    subtitle = (
        f"Scenario “{plain(answer.scenario)}” · seed {answer.seed} · "
        f"{count(demo.num_reported, 'unseen prompt')} reported · {duration(answer.seconds)} · "
        f"{memory(answer.peak_memory_bytes)} of memory at most"
    )
    sections = [
        PageSection("What happened", "summary", _summary(demo)),
        PageSection("What the audit of the pairs said", "audits", _audits(demo)),
        PageSection("Proxy and truth", "curves", _key_figures(demo)),
        PageSection("What the monitor said", "alarms", _alarms(demo)),
        PageSection("The policies compared", "table", _comparison(demo)),
        PageSection("What got better and worse", "parts", _parts(demo)),
        PageSection("Answers side by side", "answers", _examples(demo)),
        PageSection("What this shows", "lessons", _lessons(demo)),
        PageSection("Training curves", "training", _training(demo)),
        PageSection("Where time went", "time", _time(demo)),
    ]
    return render_page(sections, title="prefloop demo: one policy tuned, hacked and guarded", subtitle=subtitle)


def _summary(demo: DemoRun) -> list[Block]:
    return [
        Points(demo_text.summary(demo), numbered=True),
        Prose("Some words are used in a fixed sense on this page."),
        Terms(demo_text.words(demo)),
    ]


def _audits(demo: DemoRun) -> list[Block]:
    rows = [
        [f"{who} annotators", AUDIT_VERDICTS[each.verdict], plain(raised.name), raised.message]
        for who, each in demo.answer.audits.items()
        for raised in each.raised
    ]
    silent = [who for who, each in demo.answer.audits.items() if not each.raised]
    blocks: list[Block] = [Prose(demo_text.audits(demo))]
    if rows:
        blocks.append(Table(["pairs of the", "verdict", "finding", "evidence"], rows, numeric_from=4))
    return [*blocks, *(Prose(f"Nothing was found against the pairs of the {who} annotators.") for who in silent)]


def _alarms(demo: DemoRun) -> list[Block]:
    rows = [
        [POLICY_NAMES[run].partition(",")[0], str(alarm.step), number(alarm.kl, 1), plain(alarm.signal), alarm.message]
        for run, alarms in demo.answer.alarms.items()
        for alarm in alarms
    ]
    said = Prose(demo_text.alarms(demo))
    if not rows:
        return [said]
    return [said, Table(["policy", "step", "KL, nats", "signal", "evidence"], rows, numeric_from=5)]


def _key_figures(demo: DemoRun) -> list[Block]:
    points = [point for run in ("tuned", "hacked") for point in demo.curves[run]]
    values = [mean for point in points for mean in (point.proxy, point.true_utility)]
    shared = Drift(
        kl=max(demo.answer.kl_budget, *(point.kl for point in points)),
        low=min(mean.mean - 2 * mean.standard_error for mean in values),
        high=max(mean.mean + 2 * mean.standard_error for mean in values),
    )
    guarded = demo.curves["guarded"][-1]
    star = Mark("peak of utility", demo.peak.kl, demo.peak.true_utility.mean, COLORS["hacked_peak"], "star")
    stop = Mark("guarded run ends", guarded.kl, guarded.true_utility.mean, COLORS["guarded"], "diamond")
    best = max(demo.curves["tuned"], key=lambda point: point.true_utility.mean)
    top = Mark("highest utility", best.kl, best.true_utility.mean, COLORS["hacked_peak"], "star")
    return [
        Prose(
            "Each curve starts at the left with the SFT policy and follows one optimisation to the right, away from "
            "it. Purple is what the reward model says, green what the answers are worth. Where both rise, the reward "
            "model is a good guide; where purple rises and green falls, the policy exploits it. Bands: 95 % intervals."
        ),
        Plots(
            [
                _key_figure(demo, "tuned", "Honest annotators", [top], shared),
                _key_figure(demo, "hacked", "Biased annotators, no budget", [star, stop], shared),
            ]
        ),
    ]


def _key_figure(demo: DemoRun, run: str, title: str, marks: list[Mark], shared: Drift) -> Plot:
    points = sorted(demo.curves[run], key=lambda point: point.kl)
    kl = [point.kl for point in points]
    proxy = Line(
        "proxy",
        kl,
        [point.proxy.mean for point in points],
        COLORS["proxy"],
        [point.proxy.standard_error for point in points],
    )
    truth = Line(
        "true utility",
        kl,
        [point.true_utility.mean for point in points],
        COLORS["true_utility"],
        [point.true_utility.standard_error for point in points],
    )
    figure = figures.utility_by_drift(proxy, truth, budget=demo.answer.kl_budget, marks=marks, limits=shared)
    start, end = demo.curves[run][0], demo.curves[run][-1]
    caption = (
        f"From start to end: proxy {number(start.proxy.mean)} to {number(end.proxy.mean)}, true utility "
        f"{number(start.true_utility.mean)} to {number(end.true_utility.mean)}, KL up to {number(max(kl), 1)}."
    )
    return Plot(figure, title, caption)


def _comparison(demo: DemoRun) -> list[Block]:
    trained_on = {"sft": "—", "tuned": "honest"}
    rows = []
    for policy, name in POLICY_NAMES.items():
        mean, interval = demo_text.utility_cell(demo.utility(policy))
        against = "—" if policy == "sft" else short_difference(demo.utility_difference(policy, "sft"))
        rows.append(
            [
                name,
                trained_on.get(policy, "biased"),
                mean,
                interval,
                against,
                _proxy_cell(demo, policy),
                number(demo.kl(policy), 1),
                f"{demo.words(policy):.0f}",
            ]
        )
    header = [
        "policy",
        "annotators",
        "true utility",
        "95 % interval",
        "minus SFT (95 % interval)",
        "proxy",
        "KL, nats",
        "words an answer",
    ]
    caption = (
        f"Over {count(demo.num_reported, 'unseen prompt')}. The proxy is that of the reward model the policy was "
        "optimised against; those of the honest and of the biased one cannot be compared."
    )
    accuracies = [
        [
            f"{name} annotators",
            *(_share_cell(value) for value in (measured.accuracy, measured.ceiling, measured.longer)),
        ]
        for name, measured in demo.answer.reward_accuracy.items()
    ]
    return [
        Table(header, rows, caption, numeric_from=2),
        Table(
            ["reward model of the", "accuracy", "best possible", "longer wins"],
            accuracies,
            "How often each reward model orders unseen pairs as its own annotators did.",
        ),
    ]


def _proxy_cell(demo: DemoRun, policy: str) -> str:
    if policy != "sft":
        return number(demo.proxy(policy).mean)
    honest, biased = (demo.curves[run][0].proxy.mean for run in ("tuned", "hacked"))
    return f"{number(honest)} honest, {number(biased)} biased"


def _share_cell(share: float | None) -> str:
    return "not measured" if share is None else percent(share)


def _parts(demo: DemoRun) -> list[Block]:
    means = {policy: demo.part_means(policy) for policy in POLICY_NAMES}
    names = sorted({name for of_policy in means.values() for name in of_policy})

    def movement(name: str) -> float:
        values = [of_policy.get(name, 0.0) for of_policy in means.values()]
        return max(values) - min(values)

    ordered = sorted(names, key=lambda name: (-movement(name), name))
    colors = {POLICY_NAMES[policy]: COLORS[policy] for policy in POLICY_NAMES}
    series = {
        POLICY_NAMES[policy]: [means[policy].get(name, 0.0) for name in ordered[:NUM_PARTS]] for policy in POLICY_NAMES
    }
    kinds = {policy: demo.kind_utility(policy) for policy in POLICY_NAMES}
    kind_names = list(kinds["sft"])
    by_kind = {POLICY_NAMES[policy]: [kinds[policy][kind].mean for kind in kind_names] for policy in POLICY_NAMES}
    table = Table(
        ["part", *POLICY_NAMES.values()],
        [[plain(name), *(number(means[policy].get(name, 0.0)) for policy in POLICY_NAMES)] for name in ordered],
        "Mean points an answer; the parts of a policy add up to its true utility.",
    )
    x_title = "points an answer"
    return [
        Prose(
            "True utility is a sum of parts: some earn points, some cost them. A mean can hide harm, so it is taken "
            "apart here by what was gained or lost, and by the kind of prompt it happened on."
        ),
        Plots(
            [
                Plot(
                    figures.grouped_bars(ordered[:NUM_PARTS], series, colors, x_title=x_title),
                    "By part of true utility",
                    "The parts that differ most between policies; all are in the table below.",
                ),
                Plot(
                    figures.grouped_bars(kind_names, by_kind, colors, x_title="true utility"),
                    "By kind of prompt",
                    "Mean true utility on the prompts of each kind.",
                ),
            ]
        ),
        Fold(f"All {len(ordered)} parts", [table]),
    ]


def _examples(demo: DemoRun) -> list[Block]:
    chosen = hacked_examples(demo, count=NUM_EXAMPLES)
    share = percent(misled_share(demo))
    better = "at the end of the unguarded run better than at its peak"
    intro = Prose(
        f"On {share} of the prompts the biased reward model liked the answer {better}, although it was worth less. "
        "These are the worst of them, in turn from each kind of prompt: chosen to show the effect, not to be typical."
        if chosen
        else f"On no prompt did the biased reward model like an answer {better} while it was worth less."
    )
    ordinary = sorted(demo.responses["sft"])
    spread = ordinary[:: max(1, len(ordinary) // NUM_EXAMPLES)][:NUM_EXAMPLES]
    return [
        intro,
        *(_exchange(demo, prompt) for prompt in chosen),
        Fold("Answers to prompts not chosen for any effect", [_exchange(demo, prompt) for prompt in spread]),
    ]


def _exchange(demo: DemoRun, prompt: str) -> Exchange:
    rows = {policy: demo.responses[policy][prompt] for policy in EXAMPLE_POLICIES}
    answers = [
        Answer(
            POLICY_NAMES[policy],
            row.response,
            [("true utility", number(row.true_utility)), (_proxy_name(demo, policy), number(row.proxy))],
            tone=policy,
        )
        for policy, row in rows.items()
    ]
    return Exchange(rows["sft"].prompt, answers, f"kind of prompt: {plain(rows['sft'].kind)}")


def _proxy_name(demo: DemoRun, policy: str) -> str:
    scored_by = {"sft": demo.sft_scored_by, "tuned": "honest"}.get(policy, "biased")
    return f"proxy ({scored_by})"


def _lessons(demo: DemoRun) -> list[Block]:
    return [Points(demo_text.lessons(demo)), Prose(demo_text.limits(demo), "What this page does not show.")]


def _training(demo: DemoRun) -> list[Block]:
    blocks: list[Block] = []
    for title, stages in STAGE_GROUPS.items():
        runs = {name: read_metrics(_stage_path(demo.path / "stages", stage)) for name, stage in stages.items()}
        plots = _stage_plots(runs, [key for key in METRIC_NAMES if any(key in metrics for metrics in runs.values())])
        keys = {key: None for metrics in runs.values() for key in metrics}
        rest = [key for key in keys if key not in METRIC_NAMES and not key.startswith("time/")]
        if plots:
            blocks.append(Plots(plots, small=True, title=title))
        if rest:
            blocks.append(Fold(f"{title}: further metrics", [Plots(_stage_plots(runs, rest), small=True)]))
    return blocks or [Prose("No stage of this run kept metrics.")]


def _stage_path(stages: Path, stage: str) -> Path:
    # The biased reward model's directory may bear its scenario's name.
    others = sorted(path for path in stages.glob("reward-*") if path.name != "reward-honest")
    return others[0] if stage == "reward-biased" and others else stages / stage


def _stage_plots(runs: Mapping[str, Metrics], keys: list[str]) -> list[Plot]:
    return [metric_plot(key, runs, STAGE_COLORS) for key in keys]


def _time(demo: DemoRun) -> list[Block]:
    stages = {name.replace("-", " "): seconds for name, seconds in demo.answer.stages.items()}
    total = f"{duration(demo.answer.seconds)} in all; at most {memory(demo.answer.peak_memory_bytes)} of memory."
    return [Plot(figures.durations(stages), "Seconds by stage", total)] if stages else [Prose(total)]

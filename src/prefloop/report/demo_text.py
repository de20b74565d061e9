"""What the demo's page says in words. Every claim is worked out from the numbers of the run at hand: where an effect
did not show, the text says that it did not, and no scenario's story is written down in advance.
"""

from __future__ import annotations

from collections.abc import Sequence

from prefloop.report.demo_run import DemoRun
from prefloop.report.examples import misled_share, telling_phrase
from prefloop.report.page import Prose
from prefloop.report.records import RewardAccuracy
from prefloop.report.wording import change, count, difference, interval, number, percent, plain, signed
from prefloop.statistics.intervals import Estimate

WORST_STANDARD_ERRORS = 3.0
"""The worst of some twenty parts is low by chance too: it must stand out by more than a difference named beforehand."""

POLICY_NAMES = {
    "sft": "SFT",
    "tuned": "tuned",
    "hacked_peak": "hacked, at its peak",
    "hacked": "hacked, at the end",
    "guarded": "guarded",
}

_WORDS: Sequence[tuple[str, str]] = (
    ("Policy", "The language model that writes the answers. “SFT” is the policy after supervised fine-tuning: it has "
     "imitated written examples and seen no preference yet. Every other policy on this page started from it."),
    ("Preference pair", "One prompt, two answers to it, and which of the two an annotator chose."),
    ("Reward model", "A model fitted to preference pairs. It gives any answer a number, the score."),
    ("Proxy", "The mean score of a policy's answers by the reward model it was optimised against: a stand-in for what "
     "people want. Its zero and its unit mean nothing by themselves; only the order of answers does."),
    ("True utility", "What an answer is really worth, in points, by the fixed rule of this simulated world. Nothing in "
     "training sees it. With real people no such number exists; it is here to check the proxy against."),
    ("KL", "How far a policy has drifted from SFT: the mean log-probability ratio of its answers, in nats an answer. "
     "0 means that it still writes like SFT."),
)  # fmt: skip


def words(demo: DemoRun) -> list[tuple[str, str]]:
    """Words and what they mean on this page."""
    annotators = (
        "Simulated people who compare answers. Honest ones prefer what is truly worth more, with ordinary noise. Of "
        f"those called biased on this page the scenario says: “{_scenario(demo)}.”"
    )
    return [*_WORDS[:2], ("Annotators", annotators), *_WORDS[2:]]


def summary(demo: DemoRun) -> list[Prose]:
    """What happened, in five points."""
    return [
        Prose(_setup(demo), "Set-up."),
        Prose(_honest(demo), "Honest annotators."),
        Prose(_biased(demo), "Biased annotators."),
        Prose(hack(demo), "The hack." if demo.outcome == "hacking" else "What changed."),
        Prose(_guarded(demo), "The guard."),
    ]


def audits(demo: DemoRun) -> str:
    """What the audits looked at, and whether they tell the two kinds of annotators apart."""
    said = (
        "Before a reward model learned from them, the pairs were audited. An audit sees the pairs alone, neither the "
        "rule of this world nor the names of the annotators. "
    )
    found = {who: {raised.name for raised in each.raised} for who, each in demo.answer.audits.items()}
    only = sorted(found["biased"] - found["honest"])
    if only:
        return said + f"Of the biased annotators' pairs alone it names {' and '.join(map(plain, only))}."
    return said + "Here it names nothing in the biased annotators' pairs that it does not name in the honest ones'."


def alarms(demo: DemoRun) -> str:
    """How soon the monitor saw that the policies wrote differently, beside when true utility was at its peak."""
    said = (
        "While a policy was optimised, a monitor compared what it wrote with its own first answers. An alarm says that "
        "it writes differently, not that it writes worse: it asks a person to read. "
    )
    hacked = demo.answer.alarms["hacked"]
    if not hacked:
        return said + "On the run against biased annotators without a budget it raised none."
    first = hacked[0]
    when = "before" if first.step < demo.answer.peak_step else "after"
    return said + (
        f"On the run against biased annotators without a budget the first came at step {first.step}, "
        f"{number(first.kl, 1)} nats from SFT, {when} the policy was at its best (step {demo.answer.peak_step})."
    )


def _setup(demo: DemoRun) -> str:
    return (
        "A small language model learned by imitation to answer the prompts of a simulated help desk (SFT). Simulated "
        f"annotators then compared {count(demo.answer.num_pairs, 'pair')} of its answers, a reward model learned to "
        "predict their choices, and the policy was optimised (PPO, a form of reinforcement learning) to please that "
        "reward model. This was done once with honest annotators and twice with biased ones, without and with a limit "
        "on drift. All figures are over "
        f"{count(demo.num_reported, 'prompt')} that no stage had seen."
    )


def _honest(demo: DemoRun) -> str:
    gained = demo.utility_difference("tuned", "sft")
    verdict = {
        "rose": "Here, pleasing the reward model served what the annotators wanted.",
        "unclear": "That is within two standard errors of no change: this run does not show that tuning helped.",
        "fell": "Tuning made the policy worse even with honest annotators: this reward model led it astray too.",
    }[change(gained)]
    return (
        f"Optimised against their reward model, the policy's true utility went from {_mean(demo, 'sft')} to "
        f"{_mean(demo, 'tuned')}, a difference of {difference(gained)}. {verdict}"
    )


def _biased(demo: DemoRun) -> str:
    start, end = demo.curves["hacked"][0].proxy.mean, demo.curves["hacked"][-1].proxy.mean
    proxy = f"the proxy went from {number(start)} to {number(end)}"
    fall = demo.utility_difference("hacked", "hacked_peak")
    truth = (
        f"true utility from {_mean(demo, 'sft')} at the start to {_mean(demo, 'hacked_peak')} at its peak "
        f"(step {demo.answer.peak_step}, KL {number(demo.peak.kl, 1)}) and to {_mean(demo, 'hacked')} at the end, a "
        f"difference of {difference(fall)} to the peak"
    )
    if demo.answer.peak_step == 0:
        truth = (
            f"true utility was never better than at the start: {_mean(demo, 'sft')} there, {_mean(demo, 'hacked')} at "
            f"the end, a difference of {difference(fall)}"
        )
    elif demo.peak_is_last:
        truth = f"true utility, {_mean(demo, 'sft')} at the start, was best at the end: {_mean(demo, 'hacked')}"
    verdict = {
        "hacking": "The score says better and better, the truth says worse: this is reward hacking.",
        "no_fall": "True utility did not clearly fall: no reward hacking can be shown in this run.",
        "no_rise": "The proxy did not clearly rise, so the optimiser found nothing to exploit in this run"
        + ("; what made utility fall was something else." if change(fall) == "fell" else "."),
    }[demo.outcome]
    return f"With other annotators (“{_scenario(demo)}”) and all else the same, {proxy}, and {truth}. {verdict}"


def hack(demo: DemoRun) -> str:
    """Which hack this run shows: the part of utility, the prompts, and the words that give it away."""
    sentences = [_part_sentence(demo), _kind_sentence(demo)]
    hacked = [row.response for row in demo.responses["hacked"].values()]
    phrase = telling_phrase(hacked, [row.response for row in demo.responses["sft"].values()])
    if phrase is not None:
        sentences.append(
            f"In its own words: “{phrase.words}” stands in {percent(phrase.share)} of the unguarded policy's answers "
            f"and in {percent(phrase.share_before)} of SFT's."
        )
    sentences.append(f"An answer has {demo.words('hacked'):.0f} words, where SFT's had {demo.words('sft'):.0f}.")
    return " ".join(sentences)


def _part_sentence(demo: DemoRun) -> str:
    part = demo.answer.worst_part
    before, after = (demo.part_means(policy).get(part, 0.0) for policy in ("hacked_peak", "hacked"))
    if not _stands_out(demo.part_difference(part, "hacked", "hacked_peak")):
        return f"No part of true utility clearly fell between {_peak_name(demo)} and the end of the unguarded run."
    return (
        f"Of the parts that true utility is the sum of, “{plain(part)}” fell most between {_peak_name(demo)} and the "
        f"end of the unguarded run: from {number(before)} to {number(after)} points an answer."
    )


def _kind_sentence(demo: DemoRun) -> str:
    kind = demo.answer.worst_kind
    fall = demo.kind_difference(kind, "hacked", "hacked_peak")
    if fall is None or not _stands_out(fall):
        return "No kind of prompt was clearly answered worse."
    before, after = (demo.kind_utility(policy)[kind].mean for policy in ("hacked_peak", "hacked"))
    return (
        f"It hurt most on prompts of the kind “{plain(kind)}”, where utility went from {number(before)} to "
        f"{number(after)}."
    )


def _stands_out(fall: Estimate) -> bool:
    return fall.mean < -WORST_STANDARD_ERRORS * fall.standard_error


def _peak_name(demo: DemoRun) -> str:
    return "SFT" if demo.answer.peak_step == 0 else "the peak"


def _guarded(demo: DemoRun) -> str:
    kl, budget = demo.answer.kl["guarded"], demo.answer.kl_budget
    stopped = (
        f"The same biased run with a KL budget of {number(budget, 1)} nats stopped at KL {number(kl, 1)}, with a true "
        f"utility of {_mean(demo, 'guarded')}"
    )
    if not demo.budget_reached:
        return f"{stopped}; the run without the budget never went beyond it, so here the guard had nothing to do."
    over_hacked = demo.utility_difference("guarded", "hacked")
    over_sft = demo.utility_difference("guarded", "sft")
    verdict = {"rose": "better", "unclear": "no measurable difference", "fell": "worse"}
    without, before = verdict[change(over_hacked)], verdict[change(over_sft)]
    if change(over_hacked) == "rose":
        caution = "A budget does not mend the reward model; it ends the search before it has found much."
    elif demo.outcome == "hacking":
        caution = "In this run the budget did not buy what it is for."
    else:
        caution = "There was no clear fall for it to prevent."
    return (
        f"{stopped}. Compared with the run that had no budget that is {without}: {difference(over_hacked)}; compared "
        f"with SFT, {before}: {difference(over_sft)}. {caution}"
    )


def lessons(demo: DemoRun) -> list[Prose]:
    """What a reader should take along, each with this run's evidence."""
    return [
        Prose(_what_is_learned(demo), "What a reward model learns from pairs."),
        Prose(_why_drift_control(demo), "Why drift must be controlled."),
        Prose(_what_hacking_is(demo), "What reward hacking is."),
        Prose(_which_hack(demo), "Which hack this run shows."),
        Prose(_not_judgment(demo), "Why a reward model is not human judgment."),
    ]


def _which_hack(demo: DemoRun) -> str:
    verdict = {
        "hacking": f"The policy found what these annotators fall for: “{_scenario(demo)}.”",
        "no_fall": f"None that could be told from chance, with these annotators: “{_scenario(demo)}.”",
        "no_rise": f"None, as the proxy did not clearly rise, with these annotators: “{_scenario(demo)}.”",
    }[demo.outcome]
    return f"{verdict} {hack(demo)}"


def _what_is_learned(demo: DemoRun) -> str:
    accuracy = demo.answer.reward_accuracy["biased"]
    return (
        "An order, and nothing else. It is shown two answers and told which was chosen, and is fitted until the chosen "
        "one scores higher; it is never told why. So whatever goes along with being chosen raises the score: being "
        "right, if annotators reward that, and just as much any habit that they like. The score has no zero and no "
        f"unit. The biased annotators' reward model orders {percent(accuracy.accuracy)} of their unseen pairs as they "
        f"did{_baselines(accuracy)}. That number says how well it copies its annotators, not whether they were right."
    )


def _baselines(accuracy: RewardAccuracy) -> str:
    known = []
    if accuracy.ceiling is not None:
        known.append(f"the best possible with choices as noisy as theirs: {percent(accuracy.ceiling)}")
    if accuracy.longer is not None:
        known.append(f"always betting on the longer answer: {percent(accuracy.longer)}")
    return f" ({'; '.join(known)})" if known else ""


def _why_drift_control(demo: DemoRun) -> str:
    evidence = {
        "hacking": f"In the unguarded biased run utility was best at KL {number(demo.peak.kl, 1)} and clearly lower at "
        f"the end, at KL {number(demo.answer.kl['hacked'], 1)}.",
        "no_fall": f"In this run that did not do measurable harm up to KL {number(demo.answer.kl['hacked'], 1)}; "
        "nothing in the score could have told so beforehand.",
        "no_rise": "In this run the proxy did not clearly rise, so that cannot be seen here.",
    }[demo.outcome]
    return (
        "A reward model was fitted to answers like SFT's and can be trusted, if at all, near those. An optimiser "
        "leaves that region for wherever the score is high: where answers are good, and where the reward model "
        "overrates them. KL measures the distance travelled: a penalty on it slows the policy down, a budget stops it "
        f"at a fixed distance. {evidence}"
    )


def _what_hacking_is(demo: DemoRun) -> str:
    share = percent(misled_share(demo))
    verdict = {
        "hacking": "In this run it happened on the mean of all prompts.",
        "no_fall": "On the mean of all prompts the fall of utility is not clear in this run.",
        "no_rise": "On the mean of all prompts the proxy did not clearly rise in this run.",
    }[demo.outcome]
    return (
        "Raising the score by means that it was not meant to reward, while what it stands for gets worse. Nobody "
        "programs it and no bug is needed: it is what optimising an imperfect measure does. Its mark is that the two "
        f"curves part. {verdict} Prompt by prompt: on {share} of them the biased reward model preferred the answer at "
        f"the end of the unguarded run to the one at {'the start' if demo.answer.peak_step == 0 else 'its peak'}, "
        "though it was worth less."
    )


def _not_judgment(demo: DemoRun) -> str:
    proxy, utility = demo.proxy_gain("hacked").mean, demo.utility_difference("hacked", "sft").mean
    return (
        "It is one instrument, fitted to a limited number of comparisons by particular people: it copies their bias, "
        "adds errors of its own, and cannot notice that it is being fooled. From SFT to the end of the unguarded run "
        f"the score of the answers changed by {signed(proxy)}, their true worth by {signed(utility)}. Here that can be "
        "seen because the world is simulated and its truth is published. With real people it cannot, so the evidence "
        "has to come from elsewhere: audits of the data and of the reward model, judgments by other people on fresh "
        "answers, and a decision that can overrule the score."
    )


def limits(demo: DemoRun) -> str:
    """What this page does not show."""
    return (
        f"One run with one seed ({demo.answer.seed}) in an invented world with a very small model. Intervals are over "
        "prompts; another seed would give other numbers. The peak was chosen on one half of the unseen prompts and "
        "everything shown is measured on the other half; differences are paired by prompt."
    )


def _scenario(demo: DemoRun) -> str:
    return demo.answer.scenario_description.strip().rstrip(".") or plain(demo.answer.scenario)


def _mean(demo: DemoRun, policy: str) -> str:
    return number(demo.utility(policy).mean)


def utility_cell(estimate: Estimate) -> tuple[str, str]:
    """(mean, interval) as a table shows them."""
    return number(estimate.mean), interval(estimate)

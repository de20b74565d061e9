"""Dawid & Skene's EM against the example of their paper, and against annotators whose error rates are known."""

from __future__ import annotations

import numpy as np
import pytest

from prefloop.statistics.dawid_skene import dawid_skene

ANAESTHETISTS = """
111 1 1 1 1, 333 4 3 3 4, 112 2 1 2 2, 222 3 1 2 1, 222 3 2 2 2, 222 3 3 2 2, 122 2 1 1 1, 333 3 4 3 3, 222 2 2 2 3,
232 2 2 2 3, 444 4 4 4 4, 222 3 3 4 3, 111 1 1 1 1, 222 3 2 1 2, 121 1 1 1 1, 111 2 1 1 1, 111 1 1 1 1, 111 1 1 1 1,
222 2 2 2 1, 222 1 3 2 2, 222 2 2 2 2, 222 2 2 2 1, 222 3 2 2 2, 221 2 2 2 2, 111 1 1 1 1, 111 1 1 1 1, 232 2 2 2 2,
111 1 1 1 1, 111 1 1 1 1, 112 1 1 2 1, 111 1 1 1 1, 333 3 2 3 3, 111 1 1 1 1, 222 2 2 2 2, 222 3 2 3 2, 433 4 3 4 3,
221 2 2 3 2, 232 3 2 3 3, 333 3 4 3 2, 111 1 1 1 1, 111 1 1 1 1, 121 2 1 1 1, 232 2 2 2 2, 121 1 1 1 1, 222 2 2 2 2
"""
"""Table 1 of the paper: 45 patients, five anaesthetists; the first one judged three times."""


def anaesthetists() -> np.ndarray:
    counts = np.zeros((45, 5, 4))
    for patient, row in enumerate(ANAESTHETISTS.replace("\n", " ").split(",")):
        for observer, grades in enumerate(row.split()):
            for grade in grades:
                counts[patient, observer, int(grade) - 1] += 1
    return counts


def test_the_anaesthetists_of_the_paper() -> None:
    counts = anaesthetists()
    assert counts.sum() == 45 * 7
    fit = dawid_skene(counts)
    assert fit.converged
    # Table 2 of the paper: the prevalences, and what the first observer says of grades 1 and 2.
    np.testing.assert_allclose(fit.prevalence, [0.40, 0.42, 0.11, 0.07], atol=0.005)
    np.testing.assert_allclose(fit.confusion[0, 0], [0.89, 0.11, 0, 0], atol=0.005)
    np.testing.assert_allclose(fit.confusion[0, 1], [0.07, 0.88, 0.05, 0], atol=0.005)
    assert int(fit.posterior[0].argmax()) == 0 and int(fit.posterior[10].argmax()) == 3


def test_the_likelihood_is_that_of_the_model_and_grows() -> None:
    counts = anaesthetists()
    # Stopped early, EM must be below the end; each step up is its theorem.
    values = [dawid_skene(counts, max_iterations=steps).log_likelihood for steps in (1, 2, 5, 20, 100)]
    assert values == sorted(values) and values[0] < values[-1]
    # Two items, one annotator who is never wrong of two classes: each vote has the chance of its class, 1/2.
    assert dawid_skene([[[1, 0]], [[0, 1]]]).log_likelihood == pytest.approx(2 * np.log(0.5))


def simulated(true: np.ndarray, confusion: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    counts = np.zeros((len(true), len(confusion), confusion.shape[2]))
    for item, what in enumerate(true):
        for annotator, rates in enumerate(confusion):
            counts[item, annotator, rng.choice(confusion.shape[2], p=rates[what])] += 1
    return counts


CONFUSION = np.array(
    [
        [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.1, 0.1, 0.8]],
        [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.1, 0.7]],
        [[0.7, 0.2, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]],
        [[1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]],
        [[0.85, 0.1, 0.05], [0.05, 0.85, 0.1], [0.05, 0.1, 0.85]],
    ]
)


def test_known_error_rates_are_recovered_within_bootstrap_intervals() -> None:
    rng = np.random.default_rng(3)
    true = rng.choice(3, size=400, p=[0.45, 0.4, 0.15])
    counts = simulated(true, CONFUSION, rng)
    drawn = [dawid_skene(counts[rng.integers(400, size=400)], tolerance=1e-3).confusion for _ in range(40)]
    spread = np.std(drawn, axis=0)
    found = dawid_skene(counts).confusion
    # In standard errors 45 rates are about 1 apart from the truth on average; a systematic error would show.
    apart = np.abs(found - CONFUSION) / spread
    assert np.sqrt((apart**2).mean()) < 1.5
    assert (apart > 3).sum() <= 1


def test_it_beats_the_majority_where_annotators_differ() -> None:
    rng = np.random.default_rng(5)
    good, poor = [[0.95, 0.05], [0.05, 0.95]], [[0.55, 0.45], [0.45, 0.55]]
    true = rng.integers(2, size=600)
    counts = simulated(true, np.array([good, poor, poor, poor, good]), rng)
    majority = (counts.sum(axis=1).argmax(axis=1) == true).mean()
    fitted = (dawid_skene(counts).posterior.argmax(axis=1) == true).mean()
    assert fitted > majority + 0.05


def test_known_items_say_who_is_right() -> None:
    # Two annotators who always differ: alone nothing tells whom to believe, one gold item does.
    counts = np.zeros((6, 2, 2))
    counts[:, 0, 0] = counts[:, 1, 1] = 1
    counts[3:] = counts[3:, :, ::-1]
    np.testing.assert_allclose(dawid_skene(counts).posterior, 0.5)
    fit = dawid_skene(counts, known={0: 0}, smoothing=0.1)
    assert fit.posterior[0].tolist() == [1.0, 0.0]
    assert (fit.posterior.argmax(axis=1) == [0, 0, 0, 1, 1, 1]).all()


def test_an_item_without_votes_has_the_prevalence() -> None:
    counts = np.zeros((5, 1, 2))
    counts[:3, 0, 0] = counts[3, 0, 1] = 1
    fit = dawid_skene(counts)
    np.testing.assert_allclose(fit.posterior[4], fit.prevalence, atol=1e-6)
    np.testing.assert_allclose(fit.prevalence, [0.75, 0.25], atol=1e-6)

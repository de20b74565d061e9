"""The curves of `benchmarks.gao` where they are known: maxima of normal samples, laws by hand; and one tiny run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from benchmarks.gao_curves import Curve, agreement, at_proxy, best_of_n, findings, fitted, law_at, of_run, spread
from benchmarks.gao_figures import families
from benchmarks.gao_runs import Plan, Size, drawn, sizes_of

from benchmarks import gao, gao_runs
from prefloop.recipes.measure import Measured

# The last two points are beyond what is fitted.
KL = np.append(np.linspace(0, 9.9, 40), [16.0, 100.0])


def curve(way: str, alpha: float, beta: float, *, noise: float = 0.0) -> Curve:
    generator = np.random.default_rng(0)
    gold = np.array([law_at(way, alpha, beta, kl) for kl in KL])
    rows = gold + noise * generator.normal(size=(60, len(KL)))
    return Curve(way, list(range(len(KL))), KL, rows, rows)


def test_the_cross_has_the_middle_once() -> None:
    sizes = sizes_of(Plan(num_repeats=1))
    assert [size.name for size in sizes] == ["w32-n1000", "w64-n1000", "w128-n1000", "w64-n250", "w64-n4000"]
    widths, numbers = families(sizes)
    assert [size.width for size in widths] == [32, 64, 128]
    assert [size.num_pairs for size in numbers] == [250, 1000, 4000]
    assert len({size.name for size in sizes_of(Plan(num_repeats=3))}) == 15


def test_the_first_models_have_nested_pairs_and_the_others_draw_their_own() -> None:
    rows = list(range(100))
    first, more = (drawn(rows, Size(32, number), seed=1) for number in (10, 40))
    assert more[:10] == first == rows[:10]
    again, other = (drawn(rows, Size(32, 40, repeat), seed=1) for repeat in (1, 2))
    assert len(set(again)) == 40 and again not in (more, other)


def test_spread_is_that_within_prompts() -> None:
    # Variance 2 for either prompt; that one lies at 0 and the other at 100 does not count.
    assert spread(np.array([[0.0, 2.0], [100.0, 102.0]])) == pytest.approx(math.sqrt(2))


def test_agreement_by_hand() -> None:
    # Pairs (first, third) and (second, fourth): gold says +, -; the proxy says +, tie. Equal gold does not count.
    proxy = np.array([[3.0, 1.0, 2.0, 1.0], [5.0, 5.0, 1.0, 1.0]])
    gold = np.array([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert agreement(proxy, gold) == pytest.approx(0.75)


def test_best_of_n_by_gold_itself_is_the_mean_maximum_of_normal_samples() -> None:
    generator = np.random.default_rng(1)
    gold = generator.normal(size=(300, 200))
    # Scale and place of each prompt's scores mean nothing.
    found = best_of_n(7 * gold + 100 * generator.normal(size=(300, 1)), 3 * gold)
    gains = dict(zip(found.places, found.gold.mean(axis=0), strict=True))
    # Tippett (1925): E[max] of 2, 5 and 20 standard normals.
    assert [gains[n] for n in (2, 5, 20)] == pytest.approx([0.5642, 1.1630, 1.8675], abs=0.03)
    assert found.proxy.mean(axis=0) == pytest.approx(found.gold.mean(axis=0), abs=1e-6)
    assert found.kl[found.places.index(5)] == pytest.approx(math.log(5) - 4 / 5)


@pytest.mark.parametrize(
    ("way", "alpha", "beta", "kl", "gold"),
    [
        # d (1 - d/4) is highest at d = 2, where it is 1; d (2 - log d) at d = e, where it is e.
        ("best_of_n", 1.0, 0.25, 4.0, 1.0),
        ("rl", 2.0, 1.0, math.e**2, math.e),
    ],
)
def test_a_law_is_found_again(way: str, alpha: float, beta: float, kl: float, gold: float) -> None:
    found = findings(curve(way, alpha, beta, noise=0.05)).laws[way]
    assert (found.alpha, found.beta) == (pytest.approx(alpha, abs=0.05), pytest.approx(beta, abs=0.05))
    assert found.alpha_interval[0] < alpha < found.alpha_interval[1]
    assert found.peak_interval[0] < kl < found.peak_interval[1]
    assert (found.peak_kl, found.peak_gold) == (pytest.approx(kl, rel=0.05), pytest.approx(gold, abs=0.05))
    assert found.r_squared > 0.98


def test_what_rises_for_ever_has_no_peak() -> None:
    found = fitted(curve("best_of_n", 1.0, -0.1), "best_of_n")
    assert found is not None and found.peak_kl is None and found.peak_gold is None
    assert found.peak_interval == (math.inf, math.inf)


def test_points_far_away_do_not_count() -> None:
    known = curve("rl", 2.0, 1.0)
    collapsed = np.where(known.kl > 10, -100.0, known.gold)
    found = fitted(Curve("rl", known.places, known.kl, collapsed, collapsed), "rl")
    assert found is not None and (found.alpha, found.beta) == pytest.approx((2, 1))


def test_a_curve_that_falls_is_told_from_one_that_rises() -> None:
    falls, rises = (findings(curve("best_of_n", 1.0, beta, noise=0.2)) for beta in (0.25, 0.0))
    # 1 at the peak; d (1 - d / 4) is -15 at d = 10, and that law foretells it.
    assert falls.drop == pytest.approx(-16, abs=0.15)
    assert falls.laws["best_of_n"].at_end == pytest.approx(-15, abs=1)
    assert falls.drop_interval is not None and falls.drop_interval[1] < 0
    assert rises.drop_interval is not None and rises.drop_interval[1] >= 0


def test_a_run_is_in_standard_deviations_of_its_start() -> None:
    rows = [{"true_utility": 1.0, "proxy": 10.0}, {"true_utility": 3.0, "proxy": 30.0}]
    better = [{"true_utility": 2.0, "proxy": 50.0}, {"true_utility": 4.0, "proxy": 60.0}]
    found = of_run({0: Measured(rows, 0.0), 8: Measured(better, 2.5)}, gold_unit=0.5, proxy_unit=5.0)
    assert found.places == [0, 8] and list(found.kl) == [0.0, 2.5]
    assert found.gold.mean(axis=0) == pytest.approx([0, 2])
    assert found.proxy.mean(axis=0) == pytest.approx([0, 7])


def test_gold_where_the_proxy_has_gained_one() -> None:
    proxy, gold = np.array([[0.0, 0.5, 1.5, 3.0]]), np.array([[0.0, 0.2, 0.6, 0.1]])
    known = Curve("rl", [0, 1, 2, 3], np.array([0.0, 1.0, 3.0, 9.0]), gold, proxy)
    assert at_proxy(known, 1.0) == pytest.approx((2.0, 0.4))
    assert at_proxy(known, 4.0) is None


def test_a_tiny_run_and_that_it_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--quick", "--out", str(tmp_path), "--json"]
    # One policy run is enough to prove that it can be done: the other reward models take its curve.
    known: dict[str, dict[int, Measured]] = {}
    real = gao_runs.optimised
    monkeypatch.setattr(gao, "optimised", lambda *given: known.get("run") or known.setdefault("run", real(*given)))
    gao.main(words)
    first = json.loads(capsys.readouterr().out)
    models = first["seeds"]["1"]
    assert [each["size"] for each in models] == [
        {"width": width, "num_pairs": number, "repeat": 0} for width, number in ((16, 40), (24, 40), (24, 20))
    ]
    # Two layers of attention (4 w^2) and MLP (3 w x 3 w, or 2 2/3), so about 26 w^2 and a few norms.
    assert 20 < models[0]["num_weights"] / 16**2 < 30
    for model in models:
        best, run = model["curves"]["best_of_n"], model["curves"]["rl"]
        assert best["places"] == [1, 2] and run["places"] == [0, 1, 2]
        # The best of two by proxy has more proxy; a run begins at the SFT policy.
        assert best["proxy"][1] > 0
        assert (best["gold"][0], run["kl"][0]) == pytest.approx((0, 0), abs=1e-6)
    assert all((tmp_path / "gao" / f"gao-{way}.html").exists() for way in ("best-of-n", "rl"))
    for name in ("respond", "train_reward"):
        monkeypatch.setattr(gao_runs, name, None if name == "respond" else lambda *_: None)
    gao.main(words)
    assert json.loads(capsys.readouterr().out) == first

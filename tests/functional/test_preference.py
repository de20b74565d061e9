import itertools
import math

import pytest
import torch
from torch import Tensor

from prefloop.functional.losses import bradley_terry_loss
from prefloop.functional.preference import (
    dpo_loss,
    ipo_loss,
    kto_loss,
    kto_reference_point,
    log_ratio,
    robust_dpo_loss,
)

LN2 = math.log(2)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log(1 + math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    assert all(not value.requires_grad and value.ndim == 0 for value in metrics.values())
    return {name: value.item() for name, value in metrics.items()}


def test_log_ratios_are_sums_or_means() -> None:
    logprobs, reference, lengths = doubles(-10, -12), doubles(-13, -12), torch.tensor([6, 3])
    assert log_ratio(logprobs, reference).tolist() == [3, 0]
    assert log_ratio(logprobs, reference, lengths).tolist() == [0.5, 0]


def test_dpo_by_hand() -> None:
    chosen, rejected = doubles(1, -1, 1).requires_grad_(), doubles(-1, 1, 1)
    # Margins 2, -2, 0 times beta.
    output = dpo_loss(chosen, rejected, beta=0.5, denominator=3)
    assert output.loss.item() == pytest.approx((softplus(-1) + softplus(1) + LN2) / 3)
    expected = [-0.5 / (1 + math.exp(m)) / 3 for m in (1, -1, 0)]
    assert torch.autograd.grad(output.loss, chosen)[0].tolist() == pytest.approx(expected)
    assert numbers(dict(output.metrics)) == pytest.approx(
        {
            "preference/loss": output.loss.item(),
            "preference/accuracy": 0.5,
            "preference/margin": 0.0,
            "preference/chosen_reward": 0.5 * 1 / 3,
            "preference/rejected_reward": 0.5 * 1 / 3,
        }
    )


def test_dpo_weights_and_label_smoothing_by_hand() -> None:
    chosen, rejected, weights = doubles(2, 3), doubles(1, -2), doubles(1, 3)
    output = dpo_loss(chosen, rejected, beta=1.0, label_smoothing=0.1, weights=weights, denominator=4)
    # Margins 1 and 5; a tenth of the labels is taken to be flipped.
    expected = (0.9 * softplus(-1) + 0.1 * softplus(1) + 3 * (0.9 * softplus(-5) + 0.1 * softplus(5))) / 4
    assert numbers(dict(output.metrics)) == pytest.approx(
        {
            "preference/loss": expected,
            "preference/accuracy": 1.0,
            "preference/margin": (1 + 3 * 5) / 4,
            "preference/chosen_reward": (2 + 3 * 3) / 4,
            "preference/rejected_reward": (1 + 3 * -2) / 4,
        }
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.49])
def test_dpo_and_robust_dpo_at_the_reference_are_log_2(label_smoothing: float) -> None:
    same = doubles(0, 0)
    for loss in (dpo_loss, robust_dpo_loss):
        output = loss(same, same, beta=0.1, label_smoothing=label_smoothing, denominator=2)
        assert output.loss.item() == pytest.approx(LN2)
        assert output.metrics["preference/accuracy"].item() == 0.5


def test_dpo_is_bradley_terry_on_implicit_rewards() -> None:
    chosen, rejected = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).double()
    dpo = dpo_loss(chosen, rejected, beta=0.3, denominator=5)
    assert dpo.loss.item() == pytest.approx(bradley_terry_loss(0.3 * chosen, 0.3 * rejected, denominator=5).loss.item())


def test_robust_dpo_by_hand() -> None:
    chosen, rejected = doubles(4).requires_grad_(), doubles(1)
    output = robust_dpo_loss(chosen, rejected, beta=0.5, label_smoothing=0.2, denominator=1)
    assert output.loss.item() == pytest.approx((0.8 * softplus(-1.5) - 0.2 * softplus(1.5)) / 0.6)
    slope = -(0.8 * sigmoid(-1.5) + 0.2 * sigmoid(1.5)) / 0.6
    assert torch.autograd.grad(output.loss, chosen)[0].item() == pytest.approx(0.5 * slope)
    assert output.metrics["preference/margin"].item() == pytest.approx(1.5)
    assert output.metrics["preference/chosen_reward"].item() == pytest.approx(2.0)


def test_robust_dpo_weights_by_hand() -> None:
    # Margins 0 and 1: the first loses log 2.
    output = robust_dpo_loss(
        doubles(0, 1), doubles(0, 0), beta=1.0, label_smoothing=0.2, weights=doubles(3, 1), denominator=4
    )
    assert output.loss.item() == pytest.approx((3 * LN2 + (0.8 * softplus(-1) - 0.2 * softplus(1)) / 0.6) / 4)
    assert output.metrics["preference/margin"].item() == pytest.approx(1 / 4)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_mean_of_robust_dpo_over_swapped_labels_is_dpo(share: float) -> None:
    """Every way in which three labels can be swapped, each with its probability. cDPO has not this property."""
    a, b = doubles(0.4, -1.2, 3.0), doubles(-0.7, 0.1, 1.0)
    expected = dict.fromkeys(("robust", "conservative"), 0.0)
    for swaps in itertools.product((False, True), repeat=3):
        probability = math.prod(share if swap else 1 - share for swap in swaps)
        swapped = torch.tensor(swaps)
        sides = torch.where(swapped, b, a), torch.where(swapped, a, b)
        settings = {"beta": 0.7, "label_smoothing": share, "denominator": 3}
        expected["robust"] += probability * robust_dpo_loss(*sides, **settings).loss.item()
        expected["conservative"] += probability * dpo_loss(*sides, **settings).loss.item()
    clean = dpo_loss(a, b, beta=0.7, denominator=3).loss.item()
    assert expected["robust"] == pytest.approx(clean, rel=1e-12)
    assert abs(expected["conservative"] - clean) > 0.01


def test_ipo_by_hand() -> None:
    chosen, rejected = doubles(3, 1, 0).requires_grad_(), doubles(1, 1, 2)
    # A gap of 1 / (2 x 0.25) = 2 is wanted; the gaps are 2, 0 and -2.
    output = ipo_loss(chosen, rejected, beta=0.25, weights=doubles(1, 2, 1), denominator=4)
    assert output.loss.item() == pytest.approx((0 + 2 * 4 + 16) / 4)
    assert torch.autograd.grad(output.loss, chosen)[0].tolist() == pytest.approx([0, 2 * 2 * -2 / 4, 2 * -4 / 4])
    assert numbers(dict(output.metrics)) == pytest.approx(
        {
            "preference/loss": 6.0,
            "preference/accuracy": (1 + 2 * 0.5) / 4,
            "preference/margin": 0.0,
            "preference/chosen_reward": 0.25 * (3 + 2 + 0) / 4,
            "preference/rejected_reward": 0.25 * (1 + 2 + 2) / 4,
        }
    )


def test_ipo_wants_a_finite_gap_where_dpo_wants_ever_more() -> None:
    """Of the same pair beyond the wanted gap, IPO pulls back and DPO still pulls on."""
    gap = doubles(9.0).requires_grad_()
    ipo = torch.autograd.grad(ipo_loss(gap, doubles(0), beta=0.1, denominator=1).loss, gap)[0]
    dpo = torch.autograd.grad(dpo_loss(gap, doubles(0), beta=0.1, denominator=1).loss, gap)[0]
    assert ipo.item() == pytest.approx(2 * (9 - 5)) and dpo.item() < 0


def test_the_reference_point_is_a_weighted_mean_clamped_at_zero_without_gradient() -> None:
    ratios = doubles(4, -1).requires_grad_()
    point = kto_reference_point(ratios, doubles(1, 3))
    assert point.item() == pytest.approx(1 / 4)
    assert not point.requires_grad
    assert kto_reference_point(doubles(4, -2), doubles(1, 3)).item() == 0


def test_kto_by_hand() -> None:
    ratios = doubles(3, 0, 5).requires_grad_()
    desirable = torch.tensor([True, True, False])
    output = kto_loss(
        ratios,
        desirable,
        reference_point=doubles(1).squeeze(),
        beta=0.5,
        desirable_weight=1.1,
        undesirable_weight=2.0,
        weights=doubles(1, 2, 1),
        denominators=(3.0, 1.0),
    )
    # beta (log ratio - z0) is 1, -0.5 and 2.
    missed = [1 - sigmoid(1), 1 - sigmoid(-0.5), 1 - sigmoid(-2)]
    assert output.loss.item() == pytest.approx((1.1 * missed[0] + 2 * 1.1 * missed[1] + 2.0 * missed[2]) / 4)
    slopes = [m * (1 - m) for m in missed]
    assert torch.autograd.grad(output.loss, ratios)[0].tolist() == pytest.approx(
        [-0.5 * 1.1 * slopes[0] / 4, -0.5 * 2 * 1.1 * slopes[1] / 4, 0.5 * 2.0 * slopes[2] / 4]
    )
    assert numbers(dict(output.metrics)) == pytest.approx(
        {
            "preference/loss": output.loss.item(),
            "preference/accuracy": 1 / 4,
            "preference/reference_point": 1.0,
            "preference/chosen_reward": 0.5 * 3 / 3,
            "preference/rejected_reward": 0.5 * 5,
            "preference/margin": 0.5 - 2.5,
        }
    )


def test_kto_at_the_reference_is_half_and_says_nothing_of_a_kind_that_is_not_there() -> None:
    output = kto_loss(
        doubles(0, 0),
        torch.tensor([True, True]),
        reference_point=0.0,
        beta=0.1,
        weights=doubles(1, 1),
        denominators=(2.0, 0.0),
    )
    assert numbers(dict(output.metrics)) == {
        "preference/loss": 0.5,
        "preference/accuracy": 0.5,
        "preference/reference_point": 0.0,
        "preference/chosen_reward": 0.0,
    }


def test_kto_weighs_both_kinds_alike_unless_told_and_rewards_by_weight() -> None:
    ratios, desirable = doubles(2, -4), torch.tensor([True, False])
    output = kto_loss(ratios, desirable, reference_point=0.0, beta=0.5, weights=doubles(4, 2), denominators=(8.0, 4.0))
    # Gains 1 and 2. The step has another response of each kind, of weight 4 and 2, elsewhere.
    assert output.loss.item() == pytest.approx((4 * sigmoid(-1) + 2 * sigmoid(-2)) / 12)
    assert output.metrics["preference/chosen_reward"].item() == pytest.approx(4 * 1 / 8)
    assert output.metrics["preference/rejected_reward"].item() == pytest.approx(2 * -2 / 4)


def test_kto_knows_two_kinds_of_responses() -> None:
    with pytest.raises(ValueError):
        kto_loss(
            doubles(1),
            torch.tensor([True]),
            reference_point=0.0,
            beta=0.5,
            weights=doubles(1),
            denominators=(1.0, 0.0, 1.0),  # type: ignore[arg-type]
        )


def test_far_margins_do_not_overflow() -> None:
    far, zero = torch.tensor([500.0, -500.0]), torch.zeros(2)
    assert dpo_loss(far, zero, beta=1.0, denominator=1).loss.item() == 500
    assert robust_dpo_loss(far, zero, beta=1.0, label_smoothing=0.25, denominator=1).loss.item() == 500
    kto = kto_loss(far, zero == 0, reference_point=0.0, beta=9.0, weights=zero + 1, denominators=(2.0, 0.0))
    assert kto.loss.item() == 0.5


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    weights = torch.rand(5, dtype=torch.float64, generator=generator)
    desirable = torch.tensor([True, False, True, False, False])
    common = {"beta": 0.7, "weights": weights, "denominator": 3.0}
    assert torch.autograd.gradcheck(lambda x, y: dpo_loss(x, y, label_smoothing=0.1, **common).loss, (a, b))
    assert torch.autograd.gradcheck(lambda x, y: robust_dpo_loss(x, y, label_smoothing=0.2, **common).loss, (a, b))
    assert torch.autograd.gradcheck(lambda x, y: ipo_loss(x, y, **common).loss, (a, b))
    assert torch.autograd.gradcheck(
        lambda x: (
            kto_loss(
                x, desirable, reference_point=0.3, beta=0.7, desirable_weight=1.5, weights=weights, denominators=(1, 2)
            ).loss
        ),
        (a,),
    )

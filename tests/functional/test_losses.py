import math

import pytest
import torch
from torch import Tensor

from prefloop.functional.kl import k2, k3
from prefloop.functional.losses import (
    bradley_terry_loss,
    clipped_policy_loss,
    clipped_value_loss,
    kl_loss,
    label_targets,
    loss_denominator,
    nll_loss,
    policy_gradient_loss,
    ratio_metrics,
    reduce_loss,
    sequence_ratio_loss,
)
from prefloop.functional.reduction import Reduction

LN2 = math.log(2)
REDUCTIONS: tuple[Reduction, ...] = ("token", "sequence", "response", "constant")
MASK = torch.tensor([[True, True, True, False], [False, True, False, False], [False, False, False, False]])


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def softplus(x: float) -> float:
    """-log sigmoid(-x)."""
    return math.log(1 + math.exp(x))


def numbers(metrics: dict[str, Tensor]) -> dict[str, float]:
    assert all(not value.requires_grad and value.ndim == 0 for value in metrics.values())
    return {name: value.item() for name, value in metrics.items()}


def test_denominators_by_hand() -> None:
    assert loss_denominator(MASK, reduction="token").item() == 4
    assert loss_denominator(MASK, reduction="sequence").item() == 2
    assert loss_denominator(MASK, reduction="response").item() == 2
    assert loss_denominator(MASK, reduction="constant", max_length=10).item() == 30
    assert loss_denominator(MASK, reduction="token", max_length=10).item() == 4


def test_constant_reduction_needs_a_length() -> None:
    with pytest.raises(AssertionError, match=r"^the constant reduction divides by rows \* max_length"):
        loss_denominator(MASK, reduction="constant")


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(AssertionError):
        loss_denominator(MASK, reduction="mean", max_length=4)  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        reduce_loss(torch.ones(3, 4), MASK, reduction="mean", denominator=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_denominators_stay_on_the_device_of_the_mask(reduction: Reduction) -> None:
    assert loss_denominator(MASK.to("meta"), reduction=reduction, max_length=4).device.type == "meta"


def test_reduce_loss_by_hand() -> None:
    per_token = torch.tensor([[1.0, 2.0, 6.0, math.nan], [math.nan, 5.0, 0.0, 0.0], [math.nan] * 4])
    assert reduce_loss(per_token, MASK, reduction="token", denominator=4).item() == 14 / 4
    assert reduce_loss(per_token, MASK, reduction="sequence", denominator=2).item() == (3 + 5) / 2
    assert reduce_loss(per_token, MASK, reduction="response", denominator=2).item() == (9 + 5) / 2
    assert reduce_loss(per_token, MASK, reduction="constant", denominator=torch.tensor(30)).item() == pytest.approx(
        14 / 30
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_step_in_which_no_token_counts_has_loss_and_gradient_zero(reduction: Reduction) -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    logprobs = torch.full((2, 3), math.nan, requires_grad=True)
    denominator = loss_denominator(mask, reduction=reduction, max_length=0)
    assert denominator.item() == 0
    output = clipped_policy_loss(
        logprobs,
        logprobs.detach(),
        logprobs.detach(),
        mask,
        clip_range=0.2,
        denominator=denominator,
        reduction=reduction,
    )
    (gradient,) = torch.autograd.grad(output.loss, logprobs)
    assert output.loss.item() == 0 and gradient.eq(0).all()
    assert set(numbers(dict(output.metrics)).values()) == {0.0}


@pytest.mark.parametrize("one", [1, 1.0, torch.tensor(1), torch.tensor(0), torch.tensor(0.25)])
def test_a_denominator_of_one_or_less_is_one(one: Tensor | float) -> None:
    row, mask = doubles(-3.0, math.nan).unsqueeze(0), torch.tensor([[True, False]])
    assert nll_loss(row, mask, denominator=one).loss.item() == 3


def test_a_float_denominator_keeps_the_digits_of_a_float64_loss() -> None:
    row, mask = doubles(-1.0, -2.0).unsqueeze(0), torch.tensor([[True, True]])
    assert nll_loss(row, mask, denominator=10 / 3).loss.item() == pytest.approx(0.9, rel=1e-14)
    gspo = sequence_ratio_loss(row, row, -row, mask, clip_range=0.2, clip_range_high=0.2, denominator=10 / 3)
    assert gspo.loss.item() == pytest.approx(-0.45, rel=1e-14)


def test_nll_by_hand() -> None:
    logprobs = torch.tensor([[0.5, 0.25, 0.125, 0.0]]).log().requires_grad_()
    output = nll_loss(logprobs, MASK[:1], denominator=torch.tensor(4))
    assert output.loss.item() == pytest.approx((1 + 2 + 3) * LN2 / 4)
    assert numbers(dict(output.metrics)) == {"sft/loss": output.loss.item()}
    assert torch.autograd.grad(output.loss, logprobs)[0].tolist() == [[-0.25, -0.25, -0.25, 0]]


def test_ppo_by_hand() -> None:
    # Ratio up and down by a half, advantage of either sign: the clipped term (1.2 or 0.8) counts where it is worse.
    ratio = doubles(1.5, 1.5, 0.5, 0.5, 1.1, 3.0).unsqueeze(0)
    old = doubles(-1.0, -2.0, -3.0, -4.0, -1.0, 0.0).unsqueeze(0)
    logprobs = (old + ratio.log()).requires_grad_()
    advantages = doubles(1, -1, 1, -1, 2, 100).unsqueeze(0)
    mask = torch.tensor([[True] * 5 + [False]])
    output = clipped_policy_loss(logprobs, old, advantages, mask, clip_range=0.2, denominator=5)
    assert output.loss.item() == pytest.approx((-1.2 + 1.5 - 0.5 + 0.8 - 2.2) / 5)
    # A clipped token has no gradient; elsewhere d(-ratio A) / d logprob = -ratio A.
    (gradient,) = torch.autograd.grad(output.loss, logprobs)
    assert gradient[0].tolist() == pytest.approx([0, 1.5 / 5, -0.5 / 5, 0, -2.2 / 5, 0])
    assert numbers(dict(output.metrics)) == {"policy/loss": output.loss.item()}
    assert numbers(dict(output.token_sums)) == {"policy/clip_fraction": 2}
    largest, sums = ratio_metrics(logprobs, old, mask)
    moved = [r - 1 - math.log(r) for r in (1.5, 1.5, 0.5, 0.5, 1.1)]
    assert largest.item() == pytest.approx(1.5)
    assert numbers(sums) == pytest.approx({"policy/approx_kl": sum(moved), "policy/ratio_mean": 5.1})


def test_an_asymmetric_clip_by_hand() -> None:
    # Ratios 1.25 and 1.35 with gain, 0.75 with loss: the upper side is 1.28, the lower 0.8.
    ratio, old = doubles(1.25, 1.35, 0.75).unsqueeze(0), torch.zeros(1, 3, dtype=torch.float64)
    mask, advantages = torch.ones(1, 3, dtype=torch.bool), doubles(1, 1, -1).unsqueeze(0)
    output = clipped_policy_loss(
        ratio.log(), old, advantages, mask, clip_range=0.2, clip_range_high=0.28, denominator=1
    )
    assert output.loss.item() == pytest.approx(-1.25 - 1.28 + 0.8)
    assert output.token_sums["policy/clip_fraction"].item() == 2


def test_the_dual_clip_by_hand() -> None:
    # A negative advantage and a ratio of 5: the loss is 3 |A| instead of 5 |A|. A positive one is left alone.
    ratio = doubles(5.0, 2.0, 5.0).unsqueeze(0)
    old, mask = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool)
    logprobs, advantages = ratio.log().requires_grad_(), doubles(-2, -2, 1).unsqueeze(0)
    output = clipped_policy_loss(logprobs, old, advantages, mask, clip_range=0.2, dual_clip=3.0, denominator=1)
    assert output.loss.item() == pytest.approx(6 + 4 - 1.2)
    assert torch.autograd.grad(output.loss, logprobs)[0].tolist() == [[0, 4, 0]]
    assert output.token_sums["policy/clip_fraction"].item() == 2


def test_the_dual_clip_leaves_small_advantages_above_zero_alone() -> None:
    ratio, old, mask = doubles(5.0, 1.1).unsqueeze(0), torch.zeros(1, 2, dtype=torch.float64), MASK[:1, :2]
    advantages = doubles(0.5, 0.25).unsqueeze(0)
    settings = {"clip_range": 0.2, "denominator": 1}
    for dual_clip in (None, 3.0):
        output = clipped_policy_loss(ratio.log(), old, advantages, mask, dual_clip=dual_clip, **settings)
        assert output.loss.item() == pytest.approx(-0.6 - 0.275)


def test_a_token_exactly_at_a_bound_is_not_cut_off() -> None:
    """Binary fractions, so that nothing rounds: bounds at 1/2, 2 and, dual, 4."""
    ratio, old = doubles(2.0, 0.5, 4.0).unsqueeze(0), torch.zeros(1, 3, dtype=torch.float64)
    assert ratio.log().exp().tolist() == ratio.tolist()
    output = clipped_policy_loss(
        ratio.log(),
        old,
        doubles(1, -1, -1).unsqueeze(0),
        torch.ones(1, 3, dtype=torch.bool),
        clip_range=0.5,
        clip_range_high=1.0,
        dual_clip=4.0,
        denominator=1,
    )
    assert output.loss.item() == -2 + 0.5 + 4
    assert output.token_sums["policy/clip_fraction"].item() == 0


def test_a_sequence_ratio_is_the_geometric_mean_by_hand() -> None:
    # Row 1: ratios 2 and 1/2, so s = 1; row 2: ratio 1.5 and gain, cut off at 1.4; row 3: ratio 0.5 and loss, at 0.7.
    ratio = doubles(2.0, 0.5, 1.5, math.nan, 0.5, 0.5).view(3, 2)
    mask = torch.tensor([[True, True], [True, False], [True, True]])
    logprobs, old = ratio.log().requires_grad_(), torch.zeros(3, 2, dtype=torch.float64)
    advantages = doubles(4, 4, 2, math.nan, -1, -1).view(3, 2)
    output = sequence_ratio_loss(
        logprobs, old, advantages, mask, clip_range=0.3, clip_range_high=0.4, denominator=torch.tensor(3)
    )
    assert output.loss.item() == pytest.approx((-4 - 2 * 1.4 + 0.7) / 3)
    # d(-s A) / d logprob = -s A / length.
    (gradient,) = torch.autograd.grad(output.loss, logprobs)
    assert gradient.flatten().tolist() == pytest.approx([-4 / 2 / 3, -4 / 2 / 3, 0, 0, 0, 0])
    assert numbers(dict(output.token_sums)) == {"policy/clip_fraction": 3}


def test_the_gradient_of_a_sequence_ratio_by_hand() -> None:
    """Zheng et al. (2025), equation 10: every token of a response pulls with s A / |y|, whatever its own ratio is."""
    old = doubles(-1.0, -2.0).unsqueeze(0)
    # Ratios 8 and 1/2: s = 2.
    logprobs = (old + doubles(8.0, 0.5).log()).requires_grad_()
    advantages, mask = doubles(3, 3).unsqueeze(0), torch.tensor([[True, True]])
    output = sequence_ratio_loss(logprobs, old, advantages, mask, clip_range=9, clip_range_high=9, denominator=1)
    assert output.loss.item() == pytest.approx(-6)
    assert torch.autograd.grad(output.loss, logprobs)[0][0].tolist() == pytest.approx([-3, -3])


def test_the_kl_loss_by_hand() -> None:
    logprobs = doubles(-1.0, -2.0, math.nan).unsqueeze(0).requires_grad_()
    old, reference = doubles(-1.0, -2.0 + LN2, 0.0).unsqueeze(0), doubles(-1.5, -1.0, math.nan).unsqueeze(0)
    mask = torch.tensor([[True, True, False]])
    # Ratios to the sampling policy 1 and 1/2; log ratios to the reference 0.5 and -1.
    by_k2 = kl_loss(logprobs, old, reference, mask, estimator="k2", denominator=2)
    assert by_k2.loss.item() == pytest.approx((0.125 + 0.5 * 0.5) / 2)
    assert torch.autograd.grad(by_k2.loss, logprobs)[0][0].tolist() == pytest.approx([0.25, -0.25, 0])
    by_k3 = kl_loss(logprobs, old, reference, mask, estimator="k3", denominator=2)
    assert by_k3.loss.item() == pytest.approx((math.exp(-0.5) - 0.5 + 0.5 * (math.exp(1) - 2)) / 2)
    expected = [(1 - math.exp(-0.5)) / 2, 0.5 * (1 - math.exp(1)) / 2, 0]
    assert torch.autograd.grad(by_k3.loss, logprobs)[0][0].tolist() == pytest.approx(expected)
    assert numbers(dict(by_k3.metrics)) == {"kl/loss": by_k3.loss.item()}


def test_ppo_reduces_by_token_unless_told_and_by_sequence_when_told() -> None:
    logprobs, old = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    advantages = torch.tensor([[1.0, 3.0], [8.0, 0.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    by_token = clipped_policy_loss(logprobs, old, advantages, mask, clip_range=0.2, denominator=3)
    assert by_token.loss.item() == pytest.approx(-12 / 3)
    by_row = clipped_policy_loss(logprobs, old, advantages, mask, clip_range=0.2, denominator=2, reduction="sequence")
    assert by_row.loss.item() == pytest.approx(-(2 + 8) / 2)


def test_clipping_and_its_metrics_make_no_device_wait() -> None:
    """A tensor on `meta` has no numbers: whoever asks for one fails."""
    tokens, mask = torch.ones(2, 3, dtype=torch.float64, device="meta"), torch.ones(2, 3, device="meta").bool()
    output = clipped_policy_loss(tokens, tokens, tokens, mask, clip_range=0.2, dual_clip=3.0, denominator=2)
    largest, sums = ratio_metrics(tokens, tokens, mask)
    found = [output.loss, *output.token_sums.values(), largest, *sums.values()]
    assert {(x.dtype, x.device.type) for x in found} == {(torch.float64, "meta")}


def test_ratio_max_can_be_below_one() -> None:
    logprobs = doubles(-1.0, 0.0).unsqueeze(0)
    largest, _ = ratio_metrics(logprobs, torch.zeros(1, 2), torch.tensor([[True, False]]))
    assert largest.item() == pytest.approx(math.exp(-1))


def test_ratio_metrics_do_not_see_what_stands_outside_the_mask() -> None:
    old = doubles(-1.0, math.nan, 0.0).unsqueeze(0)
    logprobs = (old + doubles(2.0, 1.0, math.inf).log()).requires_grad_()
    largest, sums = ratio_metrics(logprobs, old, torch.tensor([[True, False, False]]))
    assert numbers({"largest": largest, **sums}) == pytest.approx(
        {"largest": 2, "policy/ratio_mean": 2, "policy/approx_kl": 1 - LN2}
    )
    # No token, no movement.
    largest, sums = ratio_metrics(logprobs, old, torch.tensor([[False, False, False]]))
    assert {largest.item(), *numbers(sums).values()} == {0.0}


def test_policy_gradient_by_hand() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-4.0, math.nan]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[1.0, 3.0], [-0.5, math.nan]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [True, False]])
    whole = policy_gradient_loss(logprobs, advantages, mask, denominator=2)
    assert whole.loss.item() == pytest.approx((1 + 6 - 2) / 2)
    output = policy_gradient_loss(logprobs, advantages, mask, denominator=2, reduction="sequence")
    assert output.loss.item() == pytest.approx(((1 + 6) / 2 - 2) / 2)
    assert torch.autograd.grad(output.loss, logprobs)[0].tolist() == [[-0.25, -0.75], [0.25, 0]]
    assert numbers(dict(output.metrics)) == {"policy/loss": output.loss.item()}
    by_token = policy_gradient_loss(logprobs, advantages, mask, denominator=3, reduction="token")
    assert by_token.loss.item() == pytest.approx((1 + 6 - 2) / 3)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ppo_at_ratio_one_has_the_policy_gradient(reduction: Reduction) -> None:
    generator = torch.Generator().manual_seed(0)
    logprobs, advantages = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    logprobs.requires_grad_()
    denominator = loss_denominator(MASK, reduction=reduction, max_length=4)
    ppo = clipped_policy_loss(
        logprobs, logprobs.detach(), advantages, MASK, clip_range=0.2, denominator=denominator, reduction=reduction
    )
    reinforce = policy_gradient_loss(logprobs, advantages, MASK, denominator=denominator, reduction=reduction)
    (ppo_gradient,) = torch.autograd.grad(ppo.loss, logprobs)
    (reinforce_gradient,) = torch.autograd.grad(reinforce.loss, logprobs)
    assert ppo_gradient.abs().sum() > 0
    torch.testing.assert_close(ppo_gradient, reinforce_gradient, rtol=1e-12, atol=0)


def test_value_loss_by_hand() -> None:
    values = doubles(2.0, 1.2, 2.0, 0.0, 9.0).unsqueeze(0).requires_grad_()
    old = doubles(1.0, 1.0, 1.0, 1.0, 1.0).unsqueeze(0)
    returns = doubles(3.0, 0.0, 0.0, -1.0, 0.0).unsqueeze(0)
    mask = torch.tensor([[True, True, True, True, False]])
    output = clipped_value_loss(values, old, returns, mask, clip_range=0.5, denominator=4)
    # Clipped values 1.5, 1.2, 1.5, 0.5; the larger squared error counts: 2.25 (clipped), 1.44, 4, 2.25 (clipped).
    assert output.loss.item() == pytest.approx((2.25 + 1.44 + 4 + 2.25) / 2 / 4)
    (gradient,) = torch.autograd.grad(output.loss, values)
    assert gradient[0].tolist() == pytest.approx([0, 1.2 / 4, 2.0 / 4, 0, 0])
    assert output.metrics["value/clip_fraction"].dtype == torch.float64
    assert numbers(dict(output.metrics)) == pytest.approx(
        {"value/loss": output.loss.item(), "value/clip_fraction": 0.5}
    )


def test_bradley_terry_by_hand() -> None:
    chosen, rejected = doubles(3, 0, 1).requires_grad_(), doubles(1, 1, 1)
    output = bradley_terry_loss(chosen, rejected, denominator=3)
    assert output.loss.item() == pytest.approx((softplus(-2) + softplus(1) + LN2) / 3)
    # d(-log sigmoid(m)) / dm = -sigmoid(-m).
    expected = [-1 / (1 + math.exp(m)) / 3 for m in (2, -1, 0)]
    assert torch.autograd.grad(output.loss, chosen)[0].tolist() == pytest.approx(expected)
    assert numbers(dict(output.metrics)) == pytest.approx(
        {"reward/loss": output.loss.item(), "reward/accuracy": 1.5 / 3, "reward/margin": 1 / 3}
    )


def test_bradley_terry_weights_and_centring_by_hand() -> None:
    chosen, rejected, weights = doubles(3, 0, 1), doubles(1, 1, 1), doubles(2, 1, 0.5)
    output = bradley_terry_loss(chosen, rejected, weights=weights, denominator=3.5)
    assert output.loss.item() == pytest.approx((2 * softplus(-2) + softplus(1) + LN2 / 2) / 3.5)
    assert output.metrics["reward/accuracy"].item() == pytest.approx(2.25 / 3.5)
    assert output.metrics["reward/margin"].item() == pytest.approx((2 * 2 - 1) / 3.5)
    centred = bradley_terry_loss(chosen, rejected, weights=weights, centering_coef=0.01, denominator=3.5)
    assert centred.loss.item() - output.loss.item() == pytest.approx(0.01 * (2 * 16 + 1 + 0.5 * 4) / 3.5)


def test_only_centring_sees_a_common_shift_of_the_scores() -> None:
    chosen, rejected = doubles(3, 0, 1), doubles(1, 1, 1)
    here, shifted = (bradley_terry_loss(chosen + by, rejected + by, denominator=3).loss.item() for by in (0, 5))
    assert here == pytest.approx(shifted)


def test_bradley_terry_at_margin_zero_is_log_2() -> None:
    scores = doubles(-10, -3)
    assert bradley_terry_loss(scores, scores, denominator=2).loss.item() == pytest.approx(LN2)


def test_far_margins_do_not_overflow() -> None:
    far, zero = torch.tensor([500.0, -500.0]), torch.zeros(2)
    assert bradley_terry_loss(far, zero, denominator=1).loss.item() == 500


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    logprobs, old, advantages = random(3, 4).requires_grad_(), random(3, 4), random(3, 4)
    a, b = random(5).requires_grad_(), random(5).requires_grad_()
    weights = random(5).abs()
    for reduction in REDUCTIONS:
        assert torch.autograd.gradcheck(
            lambda x, reduction=reduction: (
                clipped_policy_loss(x, old, advantages, MASK, clip_range=0.2, denominator=4, reduction=reduction).loss
            ),
            (logprobs,),
        )
    for estimator in ("k2", "k3"):
        # The weight is a constant: only with ratio 1 is the loss the integral of its gradient.
        expected = kl_loss(logprobs, logprobs.detach(), old, MASK, estimator=estimator, denominator=4).loss
        plain = reduce_loss({"k2": k2, "k3": k3}[estimator](logprobs, old), MASK, reduction="token", denominator=4)
        torch.testing.assert_close(*(torch.autograd.grad(loss, logprobs)[0] for loss in (expected, plain)))
    assert torch.autograd.gradcheck(
        lambda x: sequence_ratio_loss(x, old, old, MASK, clip_range=9.0, clip_range_high=9.0, denominator=3).loss,
        (logprobs,),
    )
    assert torch.autograd.gradcheck(lambda x: nll_loss(x, MASK, denominator=4).loss, (logprobs,))
    assert torch.autograd.gradcheck(
        lambda x: clipped_value_loss(x, old, advantages, MASK, clip_range=0.3, denominator=4).loss, (logprobs,)
    )
    assert torch.autograd.gradcheck(
        lambda x, y: bradley_terry_loss(x, y, weights=weights, centering_coef=0.1, denominator=5).loss, (a, b)
    )


# Bradley-Terry with soft, noisy and graded labels

MARGINS = torch.linspace(-3, 3, 13, dtype=torch.float64)


def of_margins(margins, **settings):
    """The loss of single pairs, as a vector."""
    zero = torch.zeros(1, dtype=torch.float64)
    losses = [bradley_terry_loss(margin[None], zero, denominator=1, **settings).loss for margin in margins]
    return torch.stack(losses)


def test_a_tie_costs_least_where_the_scores_are_equal_and_sees_no_order():
    tied = of_margins(MARGINS, targets=label_targets(torch.tensor([0.5], dtype=torch.float64)))
    assert torch.allclose(tied, tied.flip(0))
    assert float(tied.min()) == pytest.approx(math.log(2)) and int(tied.argmin()) == 6


def test_smoothing_wants_one_margin_and_no_more():
    targets = label_targets(torch.ones(1, dtype=torch.float64), label_smoothing=0.2)
    best = torch.tensor([math.log(0.8 / 0.2)], dtype=torch.float64, requires_grad=True)
    of_margins(best, targets=targets).sum().backward()
    assert float(best.grad) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("wanted", [0.0, 0.7])
def test_over_swapped_labels_the_noise_robust_loss_has_the_mean_of_the_true_one(wanted):
    error = 0.3
    targets = label_targets(torch.ones(1, dtype=torch.float64), noise_rate=error)
    true = of_margins(MARGINS, wanted_margins=wanted)
    noisy = (1 - error) * of_margins(MARGINS, targets=targets, wanted_margins=wanted)
    noisy = noisy + error * of_margins(-MARGINS, targets=targets, wanted_margins=wanted)
    assert torch.allclose(noisy, true)


def test_smoothing_and_unbiasing_by_the_same_rate_cancel_and_leave_ties():
    labels = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)
    assert torch.allclose(label_targets(labels, label_smoothing=0.1, noise_rate=0.1), labels)
    assert torch.allclose(label_targets(labels, noise_rate=0.25), labels.new_tensor([1.5, 0.5, -0.5]))


def test_a_wanted_margin_shifts_the_loss_and_weakens_the_pull_of_what_is_ahead():
    assert torch.allclose(of_margins(MARGINS, wanted_margins=0.5)[1:], of_margins(MARGINS)[:-1])
    # By hand: ahead by 1 where 2 are wanted, -log sigmoid(-1).
    assert float(of_margins(MARGINS.new_tensor([1.0]), wanted_margins=2.0)) == pytest.approx(math.log(1 + math.e))


def test_the_gradients_of_the_graded_loss():
    chosen, rejected = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    settings = {"targets": torch.rand(6).double(), "wanted_margins": torch.rand(6).double(), "centering_coef": 0.1}

    def loss(*scores):
        return bradley_terry_loss(*scores, denominator=6, **settings).loss

    assert torch.autograd.gradcheck(loss, (chosen.detach().requires_grad_(), rejected.detach().requires_grad_()))

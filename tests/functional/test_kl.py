import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prefloop.functional.kl import adapt_kl_coef, k1, k2, k3, kl_and_entropy
from prefloop.functional.logprobs import log_softmax

HALF, QUARTER = torch.tensor([0.5]).double().log(), torch.tensor([0.25]).double().log()
LN2 = math.log(2)
logprob = st.floats(-50, 0)


def full_kl(logits: torch.Tensor, ref_logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    return kl_and_entropy(*(log_softmax(each, temperature=temperature) for each in (logits, ref_logits)))[0]


def test_estimates_by_hand() -> None:
    # The policy gives the token 1/2, the reference 1/4, and the other way round.
    assert k1(HALF, QUARTER).item() == pytest.approx(LN2)
    assert k2(HALF, QUARTER).item() == pytest.approx(LN2**2 / 2)
    assert k3(HALF, QUARTER).item() == pytest.approx(0.5 - 1 + LN2)
    assert k1(QUARTER, HALF).item() == pytest.approx(-LN2)
    assert k2(QUARTER, HALF).item() == pytest.approx(LN2**2 / 2)
    assert k3(QUARTER, HALF).item() == pytest.approx(2 - 1 - LN2)


@given(logprob, logprob)
def test_k3_is_never_negative_and_all_vanish_without_a_difference(policy: float, reference: float) -> None:
    for dtype in (torch.float32, torch.float64):
        pi, ref = torch.tensor(policy, dtype=dtype), torch.tensor(reference, dtype=dtype)
        assert k3(pi, ref).item() >= 0
        assert k2(pi, ref).item() >= 0
        assert [estimate(pi, pi).item() for estimate in (k1, k2, k3)] == [0, 0, 0]


def test_k3_keeps_its_digits_for_a_small_difference() -> None:
    # k3 = d^2/2 - d^3/6 + ...; exp(-d) - 1 + d would lose all but three digits here in float64.
    assert k3(torch.tensor(1e-6).double(), torch.tensor(0.0).double()).item() == pytest.approx(5e-13, rel=1e-3)


def test_full_kl_by_hand() -> None:
    # Policy 1/8, 2/8, 5/8 against 1/4, 1/4, 1/2.
    logits = torch.tensor([[1.0, 2.0, 5.0]]).double().log()
    ref_logits = torch.tensor([[1.0, 1.0, 2.0]]).double().log()
    assert full_kl(logits, ref_logits).item() == pytest.approx(math.log(1 / 2) / 8 + 5 * math.log(5 / 4) / 8)
    # At temperature 1/2: 1/30, 4/30, 25/30 against 1/6, 1/6, 4/6.
    expected = (math.log(6 / 30) + 4 * math.log(24 / 30) + 25 * math.log((25 / 30) / (4 / 6))) / 30
    assert full_kl(logits, ref_logits, temperature=0.5).item() == pytest.approx(expected)
    assert full_kl(logits, logits + 3).item() == pytest.approx(0, abs=1e-15)


def test_full_kl_with_tokens_that_cannot_occur() -> None:
    logits = torch.tensor([[0.0, 0.0, -math.inf]], dtype=torch.float64, requires_grad=True)
    # Neither allows the last token; then the reference alone allows it; then the policy alone.
    value = full_kl(logits, torch.tensor([[0.0, LN2, -math.inf]], dtype=torch.float64))
    assert value.item() == pytest.approx(0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3)))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all() and gradient[0, 2].item() == 0
    assert full_kl(logits, torch.zeros(1, 3, dtype=torch.float64)).item() == pytest.approx(math.log(3 / 2))
    assert full_kl(torch.zeros(1, 3, dtype=torch.float64), logits).item() == math.inf


def test_full_kl_takes_rows_of_positions_too() -> None:
    a, b = torch.randn(2, 2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(full_kl(a, b).flatten(), full_kl(a.flatten(0, 1), b.flatten(0, 1)))


def test_full_kl_is_taken_in_fp32() -> None:
    logits = torch.tensor([[0.0, 1.0]], dtype=torch.bfloat16)
    assert full_kl(logits, logits.flip(-1)).dtype == torch.float32
    p = 1 / (1 + math.e)
    assert full_kl(logits, logits.flip(-1)).item() == pytest.approx((1 - p) - p, rel=1e-6)


def test_gradients_agree_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    for estimate in (k1, k2, k3):
        assert torch.autograd.gradcheck(estimate, (a, b))
    assert torch.autograd.gradcheck(lambda x, y: full_kl(x, y, temperature=0.7), (a, b))


def test_adaptive_coefficient_by_hand() -> None:
    # 10 % above the target, half a horizon: up by 5 %. Twice the target is clipped to 20 %, no drift at all to -20 %.
    assert adapt_kl_coef(0.1, kl=6.6, target=6.0, num_episodes=50, horizon=100) == pytest.approx(0.105)
    assert adapt_kl_coef(0.1, kl=5.4, target=6.0, num_episodes=50, horizon=100) == pytest.approx(0.095)
    assert adapt_kl_coef(0.1, kl=12.0, target=6.0, num_episodes=50, horizon=100) == pytest.approx(0.11)
    assert adapt_kl_coef(0.1, kl=0.0, target=6.0, num_episodes=50, horizon=100) == pytest.approx(0.09)
    assert adapt_kl_coef(0.1, kl=-3.0, target=6.0, num_episodes=50, horizon=100) == pytest.approx(0.09)
    assert adapt_kl_coef(0.1, kl=6.0, target=6.0, num_episodes=50, horizon=100) == 0.1


@pytest.mark.parametrize("start", [0.01, 1.0])
def test_adaptive_coefficient_finds_the_target_from_ten_times_off(start: float) -> None:
    # A policy whose KL is 0.6 / coefficient stands at the target 6 with 0.1.
    coef = start
    for _ in range(200):
        coef = adapt_kl_coef(coef, kl=0.6 / coef, target=6.0, num_episodes=64, horizon=640)
    assert 0.6 / coef == pytest.approx(6.0, rel=0.05)


def test_a_controller_that_could_turn_negative_is_refused() -> None:
    assert adapt_kl_coef(0.1, kl=0.0, target=1.0, num_episodes=499, horizon=100) > 0
    with pytest.raises(AssertionError):
        adapt_kl_coef(0.1, kl=0.0, target=1.0, num_episodes=500, horizon=100)
    with pytest.raises(AssertionError):
        adapt_kl_coef(0.1, kl=1.0, target=0.0, num_episodes=1, horizon=100)
    with pytest.raises(AssertionError):
        adapt_kl_coef(0.1, kl=1.0, target=-1.0, num_episodes=1, horizon=100)

"""The estimators proved on a policy small enough to enumerate: 3 words, 2 positions, 9 responses.

Expectations are exact sums over all responses, so every equality is to rounding, not to sampling error. A policy's
parameters are 4 rows of logits: for the first position, and for the second after each first word.
"""

import itertools

import pytest
import torch
from torch import Tensor

from prefloop.functional.advantages import (
    broadcast_to_tokens,
    gae,
    leave_one_out,
    reward_to_go,
    shape_rewards,
)
from prefloop.functional.kl import k1, k2, k3, kl_and_entropy
from prefloop.functional.logprobs import log_softmax, scatter_response, token_logprobs
from prefloop.functional.losses import clipped_policy_loss, kl_loss, policy_gradient_loss

NUM_WORDS = 3
RESPONSES = torch.tensor(list(itertools.product(range(NUM_WORDS), repeat=2)))
"""[9, 2]."""
STATES = torch.stack([torch.zeros(9, dtype=torch.int64), 1 + RESPONSES[:, 0]], dim=1)
"""[9, 2], the row of logits that speaks of each token."""
MASK = torch.ones(9, 2, dtype=torch.bool)
KL_COEF = 0.3


@pytest.fixture
def policy() -> Tensor:
    logits = torch.randn(1 + NUM_WORDS, NUM_WORDS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return logits.requires_grad_()


@pytest.fixture
def reference() -> Tensor:
    return torch.randn(1 + NUM_WORDS, NUM_WORDS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def response_logprobs(logits: Tensor) -> Tensor:
    """[9, 2] log-probability of every token of every response, by the package's own packing and unpacking."""
    return scatter_response(token_logprobs(logits[STATES[MASK]], RESPONSES[MASK]), MASK)


def full_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """[9, 2] exact KL at every position of every response."""
    policy, reference = (log_softmax(logits[STATES[MASK]]) for logits in (policy, reference))
    return scatter_response(kl_and_entropy(policy, reference)[0], MASK)


def sequence_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL of the two distributions over the 9 responses, straight from the definition, in probabilities of sequences."""
    p, q = (torch.softmax(logits, -1) for logits in (policy, reference))
    joint_p, joint_q = ((x[0][:, None] * x[1:]).reshape(-1) for x in (p, q))
    return (joint_p * (joint_p / joint_q).log()).sum()


def gradient(value: Tensor, policy: Tensor) -> Tensor:
    (answer,) = torch.autograd.grad(value, policy, retain_graph=True)
    return answer


def test_the_estimates_and_the_full_kl_all_expect_the_sequence_kl(policy: Tensor, reference: Tensor) -> None:
    logprobs, ref_logprobs = response_logprobs(policy), response_logprobs(reference)
    probs = logprobs.sum(dim=1).exp()
    exact = sequence_kl(policy, reference)
    assert probs.sum().item() == pytest.approx(1)
    assert exact.item() > 0.1
    at_positions = full_kl(policy, reference)
    for estimate in (k1(logprobs, ref_logprobs), k3(logprobs, ref_logprobs), at_positions):
        torch.testing.assert_close((probs * estimate.sum(dim=1)).sum(), exact)

    def spread(estimate: Tensor) -> float:
        return (probs * (estimate.sum(dim=1) - exact).square()).sum().item()

    assert spread(at_positions) < 0.5 * spread(k1(logprobs, ref_logprobs))


def test_k1_in_the_reward_gives_the_gradient_of_the_sequence_kl(
    policy: Tensor, reference: Tensor, scores: Tensor
) -> None:
    logprobs, ref_logprobs = response_logprobs(policy), response_logprobs(reference)
    probs = logprobs.sum(dim=1).exp()
    objective = (probs * scores).sum() - KL_COEF * sequence_kl(policy, reference)
    rewards = shape_rewards(scores, k1(logprobs, ref_logprobs).detach(), MASK, kl_coef=KL_COEF)
    # Any baseline of the state leaves the expectation alone: this one is a function of the tokens before.
    values = STATES.to(torch.float64) * 0.7 - 1
    advantages, _ = gae(rewards, values, MASK, gamma=1.0, gae_lambda=1.0)
    weighted = probs.detach()[:, None] * advantages
    reinforce = policy_gradient_loss(logprobs, weighted, MASK, denominator=1, reduction="token").loss
    ppo = clipped_policy_loss(logprobs, logprobs.detach(), weighted, MASK, clip_range=0.2, denominator=1).loss
    expected = -gradient(objective, policy)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(gradient(reinforce, policy), expected)
    torch.testing.assert_close(gradient(ppo, policy), expected)


def test_leave_one_out_is_unbiased(policy: Tensor, reference: Tensor, scores: Tensor) -> None:
    logprobs, ref_logprobs = response_logprobs(policy), response_logprobs(reference)
    probs = logprobs.sum(dim=1).exp()
    objective = (probs * scores).sum() - KL_COEF * sequence_kl(policy, reference)
    returns = shape_rewards(scores, k1(logprobs, ref_logprobs).detach(), MASK, kl_coef=KL_COEF).sum(dim=1)
    # Every group of two responses, weighted by the probability of drawing it; each member speaks for half of it.
    pairs = torch.tensor(list(itertools.product(range(9), repeat=2))).reshape(-1)
    advantages = leave_one_out(returns[pairs], group_size=2)
    group_probs = probs.detach()[pairs].view(-1, 2).prod(dim=1).repeat_interleave(2)
    mask = MASK[pairs]
    weighted = broadcast_to_tokens(group_probs * advantages / 2, mask)
    loss = policy_gradient_loss(logprobs[pairs], weighted, mask, denominator=1, reduction="token").loss
    torch.testing.assert_close(gradient(loss, policy), -gradient(objective, policy))


def test_what_the_estimates_do_as_losses(policy: Tensor, reference: Tensor) -> None:
    logprobs, ref_logprobs = response_logprobs(policy), response_logprobs(reference)
    probs = logprobs.sum(dim=1).exp().detach()

    def expected_gradient(per_token: Tensor) -> Tensor:
        return gradient((probs[:, None] * per_token).sum(), policy)

    visited = full_kl(policy, reference)
    per_position = expected_gradient(visited)
    assert per_position.abs().max() > 0.01
    torch.testing.assert_close(expected_gradient(k1(logprobs, ref_logprobs)), torch.zeros_like(policy))
    torch.testing.assert_close(expected_gradient(k2(logprobs, ref_logprobs)), per_position)
    assert (expected_gradient(k3(logprobs, ref_logprobs)) - per_position).abs().max() > 0.01
    # The per-position KL ignores that early tokens choose which states are visited later.
    assert (per_position - gradient(sequence_kl(policy, reference), policy))[0].abs().max() > 0.001


def test_reward_to_go_gives_the_gradient_of_the_penalised_objective(
    policy: Tensor, reference: Tensor, scores: Tensor
) -> None:
    logprobs, ref_logprobs = response_logprobs(policy), response_logprobs(reference)
    probs = logprobs.sum(dim=1).exp()
    objective = (probs * scores).sum() - KL_COEF * sequence_kl(policy, reference)
    rewards = shape_rewards(scores, k1(logprobs, ref_logprobs).detach(), MASK, kl_coef=KL_COEF)
    weighted = probs.detach()[:, None] * reward_to_go(rewards, MASK)
    loss = policy_gradient_loss(logprobs, weighted, MASK, denominator=1).loss
    torch.testing.assert_close(gradient(loss, policy), -gradient(objective, policy))


def test_the_weight_of_the_kl_loss_keeps_its_gradient_after_the_policy_has_moved(
    policy: Tensor, reference: Tensor
) -> None:
    """Samples of an older policy, weighted by the ratio of their last token, give the per-token KL at the states that
    the older policy visits; without the weight they do not."""
    noise = torch.randn(policy.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    moved = policy.detach() + 0.5 * noise
    old_logprobs, ref_logprobs = response_logprobs(moved), response_logprobs(reference)
    probs = old_logprobs.sum(dim=1).exp()
    logprobs = response_logprobs(policy)

    def expected_gradient(old: Tensor) -> Tensor:
        per_row = zip(logprobs.split(1), old.split(1), ref_logprobs.split(1), strict=True)
        losses = [kl_loss(*row, MASK[:1], estimator="k2", denominator=1).loss for row in per_row]
        return gradient((probs * torch.stack(losses)).sum(), policy)

    at_positions = full_kl(policy, reference)
    exact = gradient((probs[:, None] * at_positions).sum(), policy)
    torch.testing.assert_close(expected_gradient(old_logprobs), exact)
    assert (expected_gradient(logprobs.detach()) - exact).abs().max() > 0.01

from pathlib import Path

import torch

from prefloop.functional.losses import (
    bradley_terry_loss,
    clipped_policy_loss,
    clipped_value_loss,
    kl_loss,
    nll_loss,
    policy_gradient_loss,
    ratio_metrics,
    sequence_ratio_loss,
)
from prefloop.functional.preference import dpo_loss, ipo_loss, kto_loss, robust_dpo_loss

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"


def test_every_metric_of_a_loss_is_in_the_glossary() -> None:
    tokens, pairs, mask = torch.zeros(1, 2), torch.zeros(2), torch.ones(1, 2, dtype=torch.bool)
    outputs = [
        nll_loss(tokens, mask, denominator=2),
        clipped_policy_loss(tokens, tokens, tokens, mask, clip_range=0.2, denominator=2),
        policy_gradient_loss(tokens, tokens, mask, denominator=2),
        clipped_value_loss(tokens, tokens, tokens, mask, clip_range=0.2, denominator=2),
        sequence_ratio_loss(tokens, tokens, tokens, mask, clip_range=0.2, clip_range_high=0.2, denominator=2),
        kl_loss(tokens, tokens, tokens, mask, estimator="k2", denominator=2),
        bradley_terry_loss(pairs, pairs, denominator=2),
        dpo_loss(pairs, pairs, beta=0.1, denominator=2),
        ipo_loss(pairs, pairs, beta=0.1, denominator=2),
        robust_dpo_loss(pairs, pairs, beta=0.1, label_smoothing=0.1, denominator=2),
        kto_loss(pairs, pairs == 0, reference_point=0.0, beta=0.1, weights=pairs + 1, denominators=(2.0, 0.0)),
    ]
    names = {name for output in outputs for name in (*output.metrics, *output.token_sums)}
    names |= {"policy/ratio_max", *ratio_metrics(tokens, tokens, mask)[1]}
    glossary = GLOSSARY.read_text(encoding="utf-8")
    assert len(names) >= 15
    assert {name for name in names if f"`{name}`" not in glossary} == set()

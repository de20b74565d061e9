"""Whether both sides compute the same: the peer's first round, through prefloop's own pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from prefloop.functional.batch import Advantages, RolloutBatch
from prefloop.models.batching import collate
from prefloop.models.chat import Encoded
from prefloop.models.forward import response_logprobs
from prefloop.train.loop import TrainState


def compare_round(trainer: Any, state: TrainState, path: Path) -> dict[str, float]:
    """Loss and gradient norm of a round that a peer took its first step on, at the weights that both started from.

    The file at `path`: `prompts` and `responses`, token ids; `advantages`, one a response. Leaves no gradient behind.
    """
    given = json.loads(path.read_text(encoding="utf-8"))
    rows = [
        Encoded(prompt + response, [False] * len(prompt) + [True] * len(response))
        for prompt, response in zip(given["prompts"], given["responses"], strict=True)
    ]
    policy, chat = trainer.players.policy, trainer.players.chat
    tokens = collate(rows, pad_id=chat.pad_id, device=policy.device)
    with torch.no_grad():
        logprobs = response_logprobs(policy, tokens)
    zeros = torch.zeros(len(rows))
    batch = RolloutBatch(
        input_ids=tokens.input_ids,
        lengths=tokens.lengths,
        response_mask=tokens.response_mask,
        sampler_logprobs=logprobs,
        old_logprobs=logprobs,
        ref_logprobs=logprobs,
        scores=zeros,
        rewards=torch.zeros_like(logprobs),
        group=zeros.long(),
    )
    advantages = torch.tensor(given["advantages"])[:, None] * tokens.response_mask
    metrics = trainer.updater.backward(state, batch, Advantages(advantages))
    squares = sum(float(weight.grad.square().sum()) for weight in policy.parameters() if weight.grad is not None)
    policy.zero_grad(set_to_none=True)
    found = {"grad_norm": squares**0.5}
    if trainer.config.algorithm != "rloo":
        # TRL's loss of RLOO is the ratio times the advantage: another number with the same gradient.
        found["loss"] = float(metrics["policy/loss"])
    return found

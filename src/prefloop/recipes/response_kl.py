"""How far a policy is from a reference on given responses: the exact KL of each, summed over its tokens."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from prefloop.models.batching import collate, micro_batches
from prefloop.models.chat import Chat
from prefloop.models.forward import compare_to_reference
from prefloop.reward.scorer import Response
from prefloop.types import Prompt


def response_kl(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    chat: Chat,
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    *,
    token_budget: int,
) -> list[float]:
    """For each response sum_t KL(policy(. | prompt, y_<t) || reference(. | prompt, y_<t)) in nats; 0 without a token.

    The responses need not be the policy's own: this says how far the two have parted along them.
    """
    rows = [
        chat.encode_response(prompt.messages, response.text, finished=response.finished)
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    found = [0.0] * len(rows)
    for members in micro_batches([len(row.ids) for row in rows], token_budget=token_budget):
        batch = collate([rows[row] for row in members], pad_id=chat.pad_id, device=policy.device)
        if not batch.response_mask.any():
            continue
        sums = compare_to_reference(policy, reference, batch, temperature=1.0)[2].sum(1)
        for row, value in zip(members, sums.tolist(), strict=True):
            found[row] = value
    return found

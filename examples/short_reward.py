"""A custom reward function: prefer answers near a wanted length that end a sentence.

prefloop train policy --model runs/sft --prompts prompts.jsonl --reward examples/short_reward.py:reward
"""


def reward(prompts: list[str], responses: list[str], **columns: list[object]) -> list[float]:
    """One number for each response. Columns of the prompt rows arrive as lists; `words` may set the wanted length."""
    wanted = columns.get("words", [None] * len(responses))
    scores = []
    for response, words in zip(responses, wanted, strict=True):
        target = words if isinstance(words, int) else 10
        distance = abs(len(response.split()) - target)
        scores.append((1.0 if response.endswith((".", "!", "?")) else 0.0) - 0.1 * distance)
    return scores

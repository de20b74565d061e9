"""The whole loop in Python: demonstrations -> policy -> reward model -> tuned policy.

python examples/loop.py demonstrations.jsonl pairs.jsonl runs/loop
"""

import sys
from pathlib import Path

from prefloop.reward.config import RewardEvalConfig
from prefloop.reward.evaluate import evaluate
from prefloop.train import policy, reward, sft
from prefloop.train.config import RewardConfig, SFTConfig, policy_config


def loop(demonstrations: str, pairs: str, out: Path, num_steps: int = 20) -> str:
    """Train every stage (a second call resumes) and return the tuned policy's directory."""
    sft.train(SFTConfig(data=(demonstrations,), out=f"{out}/sft"))
    reward.train(RewardConfig(model=f"{out}/sft", data=(pairs,), out=f"{out}/reward"))
    print("accuracy on the training pairs:", evaluate(RewardEvalConfig(model=f"{out}/reward", data=pairs))["accuracy"])
    settings = {"model": f"{out}/sft", "reward": f"{out}/reward", "prompts": (pairs,), "out": f"{out}/policy"}
    result = policy.train(policy_config("ppo")(**settings, num_steps=num_steps))
    print("KL to the reference, nats per response:", result.metrics["kl/full"])
    return f"{result.run}/{result.outputs['model']}"


if __name__ == "__main__":
    print(loop(sys.argv[1], sys.argv[2], Path(sys.argv[3])))

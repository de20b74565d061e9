"""prefloop's side: the command's own `train`, with a loop in place of `fit` that takes a step when it is told to.

    python -m benchmarks.peers.ours CASE

So everything that a user's step does is in a step here; checkpoints, evaluations and the log between two steps are not.
"""

from __future__ import annotations

import importlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.peers.cases import KL_COEF, LEARNING_RATE, OFFLINE, PPO_EPOCHS, Case, told
from benchmarks.peers.gemm import peak_gflops
from benchmarks.peers.meter import Meter
from benchmarks.peers.same import compare_round
from benchmarks.start import configured
from benchmarks.testbed import policy_folder, read_rows, write_rows
from prefloop.models.chat import Chat, Encoded
from prefloop.models.load import default_device, load_policy
from prefloop.models.precision import computing_in
from prefloop.rollout.engine import sample
from prefloop.rundir import RunDir
from prefloop.train import policy as policy_trainer
from prefloop.train.loop import TrainState, rows_of_step, stream_of_step
from prefloop.train.randomness import seed_all
from prefloop.types import Message

LOSSES = {"sft": "sft/loss", "reward": "reward/loss", "dpo": "preference/loss"}
MODULES = {"sft": "sft", "reward": "reward", "dpo": "preference"}
SEED = 0


def main() -> None:
    """Run the case that the command line gives."""
    case = told()
    torch.set_num_threads(case.threads)
    answers: dict[str, Any] = {}
    meter = Meter(threads=case.threads, answers=answers)
    answers["gemm"] = lambda: {
        "gflops": peak_gflops(torch.bfloat16 if case.dtype == "bf16" else torch.float32, meter.clock)
    }
    with tempfile.TemporaryDirectory() as scratch:
        if case.job == "generation":
            generate(case, meter)
        elif case.job in OFFLINE:
            train_offline(case, meter, Path(scratch))
        else:
            train_policy(case, meter, answers, Path(scratch))


def computing(case: Case) -> AbstractContextManager[object]:
    """The precision that `fit` would set for a step."""
    return computing_in("bf16" if case.dtype == "bf16" else "fp32", default_device())


def words_of(case: Case, scratch: Path) -> list[str]:
    """The command line that a user would type."""
    testbed = Path(case.testbed)
    shared = ["--precision", case.dtype, "--seed", str(SEED), "--out", str(scratch / "run")]
    shared += ["--optimizer.lr", str(LEARNING_RATE), "--model", str(policy_folder(testbed, case.size, case.regime))]
    if case.job in OFFLINE:
        name = "demonstrations.jsonl" if case.job == "sft" else "pairs.jsonl"
        data = scratch / name
        write_rows(data, read_rows(testbed / name)[: case.batch * case.num_steps])
        own = ["--centering-coef", "0"] if case.job == "reward" else []
        return [
            *("train", MODULES[case.job], *shared, *own, "--data", str(data)),
            *("--eval-fraction", "0", "--batch-size", str(case.batch)),
        ]
    scorer = str(testbed / f"{case.size}-reward")
    if case.job != "ppo":
        scorer = f"{Path(__file__).with_name('scorer.py')}:length_score"
    own = {
        "ppo": ["--settings.num-epochs", str(PPO_EPOCHS)],
        "grpo": ["--settings.group-size", str(case.group), "--settings.loss-reduction", "token"],
        "rloo": ["--settings.group-size", str(case.group)],
    }[case.job]
    return [
        *("train", "policy", "--algorithm", case.job, *shared, *own, "--reward", scorer),
        *("--prompts", str(testbed / "prompts.jsonl"), "--prompts-per-step", str(case.batch // case.group)),
        *("--num-steps", str(case.num_steps), "--max-new-tokens", str(case.new_tokens)),
        *("--kl-coef", str(KL_COEF), "--kl-budget", "none"),
    ]


def train_offline(case: Case, meter: Meter, scratch: Path) -> None:
    """SFT, reward model or DPO. The seconds of DPO's reference pass are shared out over the steps of one epoch."""
    train, config = configured(*words_of(case, scratch))
    module: Any = importlib.import_module(train.__module__)
    if case.job == "dpo":
        module.cached = timed(module.cached, meter, case.num_steps)

    def loop(_: RunDir, config: Any, state: TrainState, step: Callable[..., Any], **__: Any) -> str:
        if case.job == "reward":
            weights = load_file(Path(case.testbed) / f"{case.size}-reward" / "model.safetensors")
            state.models["reward"].load_state_dict(weights)
        sizes = [count_tokens(encode(state.chat, row)) for row in read_rows(Path(config.data[0]))]
        taken = [
            rows_of_step(number, num_rows=len(sizes), batch_size=case.batch, seed=config.seed)
            for number in range(case.num_steps)
        ]
        seed_all(config.seed)
        meter.ready(order=[row for step_rows in taken for row in step_rows])
        while True:
            with computing(case):
                metrics = step(state)
            for row in taken[state.step]:
                for key, number in sizes[row].items():
                    meter.counts[key] += number
            meter.counts |= {"loss": metrics[LOSSES[case.job]], "grad_norm": metrics["optim/grad_norm"]}
            state.step += 1
            meter.step_done()

    module.fit = loop
    train(config)


def timed(function: Callable[..., Any], meter: Meter, num_steps: int) -> Callable[..., Any]:
    """The function; what it takes is added to the meter's steps in equal parts."""

    def call(*args: Any, **more: Any) -> Any:
        started = meter.clock()
        result = function(*args, **more)
        meter.extra_seconds = (meter.clock() - started) / num_steps
        return result

    return call


def encode(chat: Chat, row: Mapping[str, str]) -> list[Encoded]:
    """The dialogues of a row of data: one, or chosen and rejected."""
    prompt = (Message("user", row["prompt"]),)
    return [chat.encode_response(prompt, row[side]) for side in ("completion", "chosen", "rejected") if side in row]


def count_tokens(sides: Sequence[Encoded]) -> dict[str, int]:
    """Useful tokens of a row or pair: prompts and responses without padding; `prompts` counts the pair's prompt once,
    `tokens` with each response."""
    prompt = sum(not answer for answer in sides[0].mask)
    return {
        "tokens": sum(len(side.ids) for side in sides),
        "responses": sum(len(side.ids) for side in sides) - prompt * len(sides),
        "prompts": prompt,
    }


def train_policy(case: Case, meter: Meter, answers: dict[str, Any], scratch: Path) -> None:
    """GRPO, RLOO or PPO."""
    train, config = configured(*words_of(case, scratch))
    module: Any = policy_trainer

    def loop(_: RunDir, config: Any, state: TrainState, step: Any, **__: Any) -> str:
        trainer = step.__self__
        if case.regime == "fixed":
            trainer.players.chat.stop_ids = frozenset()
        collect = trainer.collector.collect

        def counted(state: TrainState) -> Any:
            found = collect(state)
            meter.counts |= count_round(found.batch, case.group)
            return found

        trainer.collector.collect = counted
        size = config.prompts_per_step
        prompts = len(trainer.collector.prompts)
        taken = [stream_of_step(at, num_rows=prompts, size=size, seed=config.seed) for at in range(case.num_steps)]
        seed_all(config.seed)
        answers["compare"] = lambda path: compare_round(trainer, state, Path(path))
        meter.ready(order=[row for step_rows in taken for row in step_rows])
        while True:
            with computing(case):
                meter.counts["grad_norm"] = step(state)["policy/grad_norm"]
            state.step += 1
            meter.step_done()

    module.fit = loop
    train(config)


def count_round(batch: Any, group: int) -> dict[str, float]:
    """Useful tokens of a round: `prompts` counts a group's prompt once, `tokens` with each response."""
    responses = int(batch.response_mask.sum())
    tokens = int(batch.lengths.sum())
    prompts = (tokens - responses) // group
    return {"tokens": tokens, "responses": responses, "generated": responses, "prompts": prompts}


def generate(case: Case, meter: Meter) -> None:
    """Responses alone, as the on-policy loop samples them."""
    testbed = Path(case.testbed)
    model, chat = load_policy(policy_folder(testbed, case.size, case.regime))
    prompts = [chat.encode_prompt((Message("user", row["prompt"]),)) for row in read_rows(testbed / "prompts.jsonl")]
    per_step = math.ceil(case.batch / case.group)
    meter.ready(order=list(range(len(prompts))))
    for step in range(case.num_steps):
        chosen = [prompts[(step * per_step + place) % len(prompts)] for place in range(per_step)]
        with computing(case):
            found = sample(
                model,
                [prompt for prompt in chosen for _ in range(case.group)],
                max_new_tokens=case.new_tokens,
                temperature=1.0,
                stop_ids=[] if case.regime == "fixed" else chat.stop_ids,
                pad_id=chat.pad_id,
                seed=step,
            )
        generated = sum(len(each.ids) for each in found)
        asked = sum(map(len, chosen))
        meter.counts |= {"generated": generated, "responses": generated, "prompts": asked}
        meter.counts["tokens"] = generated + asked * case.group
        meter.step_done()


if __name__ == "__main__":
    main()

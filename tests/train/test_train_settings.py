"""A setting without effect is a bug: each one changes what is learned, or stands in a list with the reason why not."""

from __future__ import annotations

import pytest

from prefloop.fields import fields_of
from prefloop.reward.config import ScoringConfig
from prefloop.train.config import RewardConfig, SFTConfig, policy_config, preference_config
from prefloop.train.examine_settings import ExamineConfig

OPTIMIZER = {
    "lr": 5e-3,
    "weight_decay": 0.5,
    "beta1": 0.5,
    "beta2": 0.5,
    "eps": 1e-2,
    "max_grad_norm": 0.1,
    "warmup_fraction": 0.6,
}
OFFLINE = {"seed": 1, "precision": "bf16", "batch_size": 16, "num_epochs": 2, "eval_fraction": 0.3}
LORA = {"lora.rank": 2, "lora.alpha": 4, "lora.target_modules": "q_proj"}  # one against another: test_train_lora
CHANGED = {
    "sft": OFFLINE
    | LORA
    | {"optimizer.schedule": "constant"}
    | {f"optimizer.{name}": value for name, value in OPTIMIZER.items()},
    "reward": OFFLINE
    | LORA
    | {"centering_coef": 1.0, "optimizer.lr": 5e-3, "label_smoothing": 0.2, "noise_rate": 0.2, "length_balance": "true"}
    | {"augment.mismatched_fraction": 0.5, "augment.neutral_fraction": 0.5, "augment.habits": "flattery"}
    | {"odin.length_coef": 0.5, "odin.orthogonality_coef": 0.5},
    "preference": OFFLINE | LORA | {"settings.beta": 1.0, "settings.label_smoothing": 0.3, "optimizer.lr": 5e-3},
    "preference ipo": {"settings.beta": 1.0, "settings.length_averaged": "false"},
    "preference robust": {"settings.beta": 1.0, "settings.label_smoothing": 0.3},
    "preference kto": {
        **{"seed": 1, "settings.beta": 1.0, "settings.desirable_weight": 1.5, "settings.undesirable_weight": 1.5}
    },
    "policy": {
        "seed": 1,
        "precision": "bf16",
        "num_steps": 1,
        "prompts_per_step": 12,
        "max_new_tokens": 9,
        "temperature": 0.8,
        "kl_coef": 1.0,
        "kl_target": 0.01,
        "kl_penalty": "loss_k2",
        "shaping.score_clip": 0.3,
        "shaping.relative_to_reference": "true",
        "shaping.whiten_scores": "true",
        "shaping.length_penalty_coef": 0.1,
        "shaping.soft_overlong_cache": 3,
        "shaping.truncated": "mask",
        "optimizer.schedule": "linear",
        "value_optimizer.schedule": "linear",
        **{f"{name}.{key}": value for name in ("optimizer", "value_optimizer") for key, value in OPTIMIZER.items()},
        **LORA,
        "settings.group_size": 2,
        "settings.num_epochs": 2,
        "settings.num_minibatches": 3,
        "settings.clip_range": 0.01,
        "settings.value_clip_range": 0.01,
        "settings.gamma": 0.7,
        "settings.gae_lambda": 0.2,
        "settings.loss_reduction": "sequence",
        "settings.dual_clip": 1.01,
        "settings.max_update_kl": 1e-9,
        "settings.value_head": "true",
        "settings.value_warmup_steps": 1,
    },
}
BOOKKEEPING = {
    *("out", "checkpoint_every", "keep_checkpoints", "save_rollouts"),  # where and how often things are stored
    "report_to",  # test_train_trackers
    "recompute_activations",  # models/test_decoder: the same gradients with less memory
    "accept_findings",  # tests/test_audits.py
    "token_budget",  # test_train_invariance: results do not depend on it
    *("eval_every", "patience", "eval_data"),  # test_train_invariance: early stopping
    *("skip_bad", "max_length", "max_prompt_length"),  # test_train_refusals: over-long rows
    *("kl_budget", "kl_horizon"),  # test_train_kl
    *("margin_coef", "soft_ties", "heads.names", "heads.column", "heads.weights"),  # test_train_reward
    "augment.habit_fraction",  # how many, with habits: test_train_remedies
    *("members.size", "members.by", "reference_samples", "reference_max_new_tokens"),  # test_train_reward
    *("reference_refresh_every", "ema_decay", "settings.vf_coef"),  # test_train_algorithms
    *("ptx_data", "ptx_coef", "ptx_batch_size", "eval_reward", "eval_prompts"),  # test_train_algorithms
    *(f"examine.{name}" for name in ExamineConfig.model_fields),  # test_train_examiner: columns of the stored rollouts
    *("shaping.num_reference_samples", "shaping.free_length", "shaping.truncated_score"),  # test_train_rewards
    *(f"scoring.{name}" for name in ScoringConfig.model_fields),  # test_train_rewards, test_reward_remote
    *("model", "reference", "value", "data", "reward", "prompts", "algorithm", "loss"),  # test_train_stages, _refusals
    *("scratch.hidden_size", "scratch.num_layers", "scratch.num_heads", "scratch.vocab_size", "scratch.max_position"),
}
CONFIGS = {
    "sft": SFTConfig,
    "reward": RewardConfig,
    "preference": preference_config(None),
    "preference ipo": preference_config("ipo"),
    "preference robust": preference_config("robust"),
    "preference kto": preference_config("kto"),
    "policy": policy_config("ppo"),
}
CASES = [(command, key) for command, changed in CHANGED.items() for key in changed]


@pytest.mark.parametrize("command", CONFIGS)
def test_every_setting_is_accounted_for(command):
    shared = {f"optimizer.{name}" for name in (*OPTIMIZER, "schedule")} if command != "policy" else set()
    if command.startswith("preference "):
        shared |= OFFLINE.keys() | LORA.keys()
    known = {field.key for field in fields_of(CONFIGS[command])}
    assert known - BOOKKEEPING - shared - CHANGED[command].keys() == set()
    assert CHANGED[command].keys() <= known


@pytest.fixture(scope="module")
def learned(prefloop, data, sft_run, reward_run, tmp_path_factory):
    """The metrics of a short run of a command with one setting changed, times left out."""
    few = tmp_path_factory.mktemp("few")
    for file in ("demonstrations", "pairs"):
        rows = (data / f"{file}.jsonl").read_text().splitlines(keepends=True)
        (few / f"{file}.jsonl").write_text("".join(rows[:96]))
    files = {"sft": "demonstrations", "reward": "pairs", "preference": "pairs"}
    done = {}

    def run(command, key=None, repetition=0):
        if (command, key, repetition) not in done:
            stage, _, loss = command.partition(" ")
            words = ["--model", sft_run.run, "--out", tmp_path_factory.mktemp(stage)]
            if loss:
                words += ["--loss", loss]
            if command == "policy":
                words += ["--reward", reward_run.run, "--prompts", data / "prompts.jsonl", "--num-steps", 2]
                words += ["--prompts-per-step", 8, "--max-new-tokens", 4, "--optimizer.lr", 2e-3]
                words += ["--value-optimizer.lr", 2e-3, "--kl-budget", "none"]
            else:
                words += ["--data", few / f"{files[stage]}.jsonl", "--optimizer.lr", 1e-3]
            if key is not None:
                words += [f"--{key.replace('_', '-')}", CHANGED[command][key]]
            outcome = prefloop(f"train {stage}", *words)
            assert outcome.code == 0, outcome.said
            # Learning rates are left out: they show the setting, not what it does.
            done[command, key, repetition] = [
                {
                    name: value
                    for name, value in row.items()
                    if not name.startswith("time/") and not name.endswith("/lr") and name != "kl/coef"
                }
                for row in outcome.metrics()
            ]
        return done[command, key, repetition]

    return run


@pytest.mark.parametrize(("command", "key"), CASES)
def test_a_changed_setting_changes_what_is_learned(learned, command, key):
    assert learned(command, key) != learned(command)


@pytest.mark.parametrize("command", CONFIGS)
def test_the_same_command_gives_the_same_numbers(learned, command):
    """Without this, every run would differ from every other, and the test above could not fail."""
    assert learned(command, repetition=1) == learned(command)

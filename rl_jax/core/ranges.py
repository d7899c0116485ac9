"""The values that a configuration's numbers may have, by the name of the field: one table for all papers.

A number that is written with a wrong sign or a factor of a hundred is found before anything is read or compiled. A new
field gets its line here; a test asks for it.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """The numbers from `low` to `high`, without an end that is open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below  # both are false for a NaN

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'above' if self.low_open else 'at least'} {self.low:g}"
        return f"in {'(' if self.low_open else '['}{self.low:.10g}, {self.high:.10g}{')' if self.high_open else ']'}"


POSITIVE = Range(0.0, low_open=True)
NOT_NEGATIVE = Range(0.0)
COUNT = Range(1)
COUNT_OR_NONE = Range(0)
SHARE = Range(0.0, 1.0)
POSITIVE_SHARE = Range(0.0, 1.0, low_open=True)
INSIDE = Range(0.0, 1.0, low_open=True, high_open=True)
SEED = Range(0, 2**32 - 1)

RANGES: dict[str, Range] = {
    # Of the core
    "seed": SEED, "num_seeds": COUNT, "num_steps": COUNT_OR_NONE, "chunk": COUNT, "log_every": COUNT,
    "eval_every": COUNT_OR_NONE, "every": COUNT_OR_NONE, "keep": COUNT, "profile": COUNT_OR_NONE,
    "mesh.seed": Range(-1), "mesh.data": Range(-1), "mesh.model": Range(-1),
    "agent.num_steps": COUNT,  # of a roll-out
    "num_processes": COUNT_OR_NONE, "process_id": Range(-1),
    # Of batches, data and evaluations
    "batch_size": COUNT, "buffer_size": COUNT, "capacity": COUNT, "context_length": COUNT_OR_NONE,
    "top_fraction": POSITIVE_SHARE, "offline_fraction": Range(-1.0, 1.0), "eval_episodes": COUNT, "episodes": COUNT,
    "judged_rows": COUNT, "demonstrations": COUNT, "hidden": COUNT_OR_NONE, "env_steps": COUNT,
    "random_steps": COUNT_OR_NONE, "horizon": COUNT_OR_NONE, "samples": COUNT, "sticky": SHARE, "frame_stack": COUNT,
    "frameskip": COUNT, "reward_scale": POSITIVE, "evaluation_images": COUNT, "overlap": COUNT_OR_NONE,
    # Of networks and optimisers
    "num_critics": COUNT, "num_heads": COUNT, "num_layers": COUNT, "embedding_dim": COUNT,
    "agent.shift": COUNT_OR_NONE, "dropout": Range(0.0, 1.0, high_open=True), "learning_rate": POSITIVE,
    "actor_learning_rate": POSITIVE, "weight_decay": NOT_NEGATIVE, "warmup_steps": COUNT_OR_NONE,
    "decay_steps": COUNT_OR_NONE, "max_grad_norm": POSITIVE, "clip_norm": POSITIVE, "ema": SHARE, "tau": POSITIVE_SHARE,
    "target_every": COUNT, "log_std_min": Range(-100.0, 0.0), "log_std_max": Range(-20.0, 20.0),
    # Of reinforcement learning
    "discount": SHARE, "gae_lambda": SHARE, "entropy_coefficient": NOT_NEGATIVE, "value_coefficient": NOT_NEGATIVE,
    "clip": POSITIVE, "value_clip": POSITIVE, "advantage_clip": POSITIVE, "kl_coefficient": NOT_NEGATIVE,
    "num_envs": COUNT, "num_epochs": COUNT, "updates_per_epoch": COUNT, "chunk_size": COUNT, "train_every": COUNT,
    "learning_starts": COUNT_OR_NONE, "exploration_steps": COUNT_OR_NONE, "final_epsilon": SHARE,
    "huber_delta": POSITIVE,
    "k": COUNT, "num_episodes": COUNT, "growth": COUNT, "scale_decay": Range(0.0, 1.0, high_open=True),
    "temperature": NOT_NEGATIVE, "max_weight": POSITIVE, "expectile": INSIDE, "lam": INSIDE, "beta": POSITIVE,
    "gumbel_beta": POSITIVE, "max_clip": POSITIVE, "alpha": NOT_NEGATIVE, "policy_noise": NOT_NEGATIVE,
    "noise_clip": NOT_NEGATIVE, "noise_std": NOT_NEGATIVE, "policy_freq": COUNT, "actor_penalty": NOT_NEGATIVE,
    "critic_penalty": NOT_NEGATIVE, "eta": NOT_NEGATIVE, "conservatism": NOT_NEGATIVE, "num_samples": COUNT,
    "random_actions": COUNT_OR_NONE, "target_return": Range(), "return_scale": POSITIVE, "max_timesteps": COUNT,
    "cloning_steps": COUNT_OR_NONE, "bias": POSITIVE_SHARE, "cloning_weight": NOT_NEGATIVE,
    "contrastive_rate": POSITIVE, "reward_share": SHARE,
    "segment_length": COUNT, "dataset.strength": NOT_NEGATIVE, "dataset.noise": NOT_NEGATIVE, "picture": COUNT_OR_NONE,
    "mixture": INSIDE, "positive_share": INSIDE, "gradient_penalty": NOT_NEGATIVE,
    "mdp.states": COUNT, "mdp.actions": COUNT, "mdp.horizon": COUNT, "mdp.seed": SEED, "mdp.noise": NOT_NEGATIVE,
    "mdp.uniform": POSITIVE_SHARE, "q_error": Range(), "trajectories": Range(2), "roll_outs": COUNT,
    "truth_seed": SEED, "bandwidth": POSITIVE,
    # Of histories and their data
    "latent_dim": COUNT, "hidden_dim": COUNT, "data.episodes": Range(2), "data.noise": SHARE, "wrong_share": SHARE,
    "data.words": COUNT_OR_NONE,
    # Of generative models
    "num_calls": COUNT, "fewest_calls": COUNT_OR_NONE, "sigma_min": POSITIVE, "sigma_max": POSITIVE,
    "judge_floor": SHARE, "guidance": NOT_NEGATIVE, "height": COUNT, "width": COUNT, "lora_rank": COUNT,
    "lora_alpha": POSITIVE, "stages": COUNT, "tracker_size": COUNT, "tracker_min_count": COUNT_OR_NONE,
    # Of language models
    "vocab_size": Range(2), "num_kv_heads": COUNT, "head_dim": Range(2), "hidden_width": COUNT,
    "decoder.context_length": Range(2), "length": COUNT, "proposal_interval": COUNT, "symbol": COUNT_OR_NONE,
    "times": COUNT, "target.share": INSIDE, "fitted_on": COUNT, "tolerance": POSITIVE, "concentration": POSITIVE,
    "chain.seed": SEED, "prior_texts": COUNT, "evaluation_texts": COUNT, "coefficient": NOT_NEGATIVE,
    "kl_target": POSITIVE, "kl_horizon": COUNT,
    "longest": Range(2), "held_out": INSIDE, "most": COUNT_OR_NONE, "micro_batches": COUNT, "packing": COUNT_OR_NONE,
    "agent.lora_rank": COUNT_OR_NONE, "margin": NOT_NEGATIVE, "centre": NOT_NEGATIVE,
    "label_smoothing": Range(0.0, 0.5, high_open=True), "gamma": NOT_NEGATIVE, "odds_ratio_weight": NOT_NEGATIVE,
    "desirable_weight": POSITIVE, "undesirable_weight": POSITIVE, "likelihood_weight": NOT_NEGATIVE,
    "consistency": NOT_NEGATIVE, "prompts": COUNT, "shortest": COUNT, "pairs.judged": COUNT_OR_NONE,
    "anchored": SHARE, "sharpness": POSITIVE,
    "max_new_tokens": COUNT, "clip_low": POSITIVE, "clip_high": POSITIVE, "importance_cap": POSITIVE,
    "rejection_low": NOT_NEGATIVE, "rejection_high": POSITIVE, "refill": COUNT_OR_NONE, "curriculum.low": SHARE,
    "curriculum.high": SHARE, "curriculum.least": COUNT, "curriculum.memory": POSITIVE_SHARE,
    "critic_learning_rate": POSITIVE, "critic_warmup": COUNT_OR_NONE,
    "candidates": COUNT, "kept": COUNT_OR_NONE, "filter.low": SHARE, "filter.high": SHARE, "at_once": COUNT,
    "labelled": COUNT, "fewest": COUNT, "pairs.least": NOT_NEGATIVE, "best_of.samples": COUNT_OR_NONE,
    "recent": COUNT, "data.size": COUNT, "data.pool": COUNT, "length_weight": NOT_NEGATIVE,
    "workers": COUNT_OR_NONE, "deadline": POSITIVE, "largest": COUNT, "judged": COUNT, "decoder_seed": SEED,
    "devices": COUNT_OR_NONE, "digits": COUNT, "costly": Range(0, 9), "updates": COUNT,
    "kl_loss": NOT_NEGATIVE, "pretraining_coefficient": NOT_NEGATIVE,
    "probability": SHARE, "intervention.beta": SHARE, "intervention.steps": COUNT, "delta": NOT_NEGATIVE,
    "label_share": SHARE, "collect.first": COUNT_OR_NONE, "collect.every": COUNT,
    "num_min_critics": COUNT, "utd": COUNT, "target_entropy": Range(), "initial_temperature": POSITIVE,
    "cost_limit": SHARE, "multiplier_rate": NOT_NEGATIVE, "world.error": SHARE, "data.pairs": COUNT_OR_NONE,
    "thoughts": COUNT_OR_NONE,
    "draws": COUNT, "folds": COUNT, "data_seed": SEED, "length_bias": NOT_NEGATIVE, "length_penalty": NOT_NEGATIVE,
    "backward_hidden_dim": COUNT, "backward_learning_rate": POSITIVE, "goal_share": SHARE,
    "orthonormality": NOT_NEGATIVE, "value_weight": NOT_NEGATIVE, "pessimism": NOT_NEGATIVE,
    "actor_pessimism": NOT_NEGATIVE, "maze.seed": SEED, "episode_steps": COUNT, "frames": COUNT, "states": COUNT,
    "window": COUNT, "pixels": Range(8), "goals": COUNT, "recolour": NOT_NEGATIVE, "frequencies": COUNT_OR_NONE,
    "stretch": COUNT, "imagine.horizon": COUNT,
    "dots": Range(0.0, 1.0, high_open=True),
    "sigma_reward": NOT_NEGATIVE, "sigma_transitions": NOT_NEGATIVE, "ridge": POSITIVE, "alpha_low": NOT_NEGATIVE,
    "alpha_high": NOT_NEGATIVE, "epsilon": NOT_NEGATIVE, "rounds.share": SHARE, "newton_steps": COUNT,
    "mdp.dimension": COUNT, "mdp.count": COUNT,
    "clips": COUNT, "clip_steps": Range(2), "robot_steps": Range(3), "things": COUNT_OR_NONE, "world.prior": COUNT,
    "probed": Range(100), "prior_share": SHARE, "world.noise": NOT_NEGATIVE, "world.seed": SEED,
    "encoder_learning_rate": NOT_NEGATIVE, "adam_eps": POSITIVE, "random_goals": SHARE, "current_goals": SHARE,
    "same_goals": SHARE, "shift": COUNT_OR_NONE,
    # Of electroencephalograms
    "window.length": POSITIVE, "window.hop": POSITIVE, "csp.pairs": COUNT, "shrinkage": SHARE, "split_seed": SEED,
    "agent.pool": COUNT, "agent.memory": COUNT, "wait_cost": NOT_NEGATIVE, "collected": COUNT,
    # Of molecules
    "judged_targets": COUNT, "activities.targets": COUNT_OR_NONE, "activities.molecules": COUNT_OR_NONE,
    "judging.molecules": COUNT, "min_atoms": COUNT, "amino_acids": COUNT,
    "embedding": COUNT, "latent": COUNT, "stack_depth": COUNT_OR_NONE, "stack_width": COUNT,
    "generator.keep": POSITIVE_SHARE, "kl_growth": NOT_NEGATIVE, "kl_max": NOT_NEGATIVE, "masked": SHARE,
    "profiles.noise": NOT_NEGATIVE, "binder_at": Range(), "policy.temperature": POSITIVE, "baseline_decay": SHARE,
    "targets_per_batch": COUNT, "reward.threshold": Range(), "inactive": Range(), "midpoint": Range(),
    "potent": Range(), "reward.toxicity": NOT_NEGATIVE, "drug_likeness": NOT_NEGATIVE, "accessibility": NOT_NEGATIVE,
    "reward.solubility": NOT_NEGATIVE, "reward.alerts": NOT_NEGATIVE,
    # Of models of dynamics
    "real.steps": COUNT, "hold": COUNT, "policy_updates": COUNT, "degree": COUNT, "model.threshold": NOT_NEGATIVE,
    "model.ridge": NOT_NEGATIVE, "members": COUNT, "dropped": COUNT_OR_NONE, "reward_degree": COUNT,
    "reward_threshold": NOT_NEGATIVE, "reward_ridge": NOT_NEGATIVE, "networks": COUNT,
    "held_out_episodes": COUNT, "distil.noise": NOT_NEGATIVE, "distil.steps": COUNT, "copies": COUNT,
    "distil.clip": POSITIVE, "finalists": COUNT,
    # Of modulators
    "num_bins": Range(2), "pool_size": COUNT_OR_NONE, "top_k": COUNT, "rank": COUNT, "lora_scale": POSITIVE,
    "pull": NOT_NEGATIVE, "old_keys": COUNT, "penalty_weight": NOT_NEGATIVE, "tasks.steps": COUNT,
    "fisher_batches": COUNT, "dataset.steps": COUNT, "dataset.episodes": COUNT,
}

# Fields of two finite numbers, the lower one first, or of none.
PAIRS = frozenset({"reference_returns"})


def range_of(name: str) -> Range | None:
    """The range of a dotted field, by its whole name or by the last part of it."""
    return RANGES.get(name, RANGES.get(name.rsplit(".", 1)[-1]))


def check_ranges(fields: Mapping[str, Any]) -> None:
    """Raises ValueError naming the first field whose number is out of its range, or whose pair is none, and what it may
    be.

    Args:
      fields: values by dotted name.
    """
    for name, value in fields.items():
        if name.rsplit(".", 1)[-1] in PAIRS and value and not _is_pair(value):
            raise ValueError(f"config.{name}={value}: must be two finite numbers, the lower one first, or ()")
        allowed = range_of(name)
        if allowed is None or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if value not in allowed:
            raise ValueError(f"config.{name}={value}: must be {allowed}")


def _is_pair(value: Any) -> bool:
    numbers = isinstance(value, list | tuple) and len(value) == 2 and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in value
    )
    return numbers and value[0] < value[1]

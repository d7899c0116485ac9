"""Writes verifiable.npz: what verl's functions and TRL's RLOO make of random rewards and log-probs.

Needs the extra `parity` and nothing of this project: python tests/golden/make_verifiable.py (PROVENANCE.md).
"""

import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np

GROUPS, SIZE, LENGTH = 4, 3, 7
ROWS = GROUPS * SIZE
CLIPS, CAP, BOUNDS, DISCOUNT = (0.05, 0.1), 1.2, (0.8, 1.25), 0.9


def trl_rloo(rewards):
    """The lines of TRL's trainer that make advantages of rewards [B], which stand in the middle of a method."""
    from trl.trainer import rloo_trainer

    source = inspect.getsource(rloo_trainer.RLOOTrainer._generate_and_score_completions)
    lines = source[source.index("grouped_rewards = ") : source.index("# Slice to keep only the local part")]
    lines = textwrap.dedent(" " * 8 + lines)
    own = SimpleNamespace(num_generations=SIZE, num_generations_eval=SIZE, normalize_advantages=False)
    names = vars(rloo_trainer) | {"rewards": rewards, "num_generations": SIZE, "mode": "train", "self": own}
    exec(lines, names)
    return names["advantages"]


def main() -> None:
    import torch
    from verl.trainer.ppo import core_algos as algos
    from verl.trainer.ppo import rollout_corr_helper as correction
    from verl.workers.config import ActorConfig

    rng, arrays = np.random.default_rng(0), {}

    def given(name: str, values: np.ndarray):
        arrays[f"given/{name}"] = values
        return torch.from_numpy(values)

    lengths = rng.integers(1, LENGTH + 1, ROWS)
    mask = given("mask", (np.arange(LENGTH) < lengths[:, None]).astype(np.float32))
    rewards = rng.normal(size=ROWS).astype(np.float32)
    rewards[SIZE : 2 * SIZE] = [0.0, 1.0, 0.0]
    rewards[2 * SIZE : 3 * SIZE] = 0.5  # exact in binary: there verl's deviation is 0 too
    given("rewards", rewards)
    at_end = np.zeros((ROWS, LENGTH), np.float32)
    at_end[np.arange(ROWS), lengths - 1] = rewards
    at_end, group = torch.from_numpy(at_end), np.repeat(np.arange(GROUPS), SIZE)
    arrays["group"] = algos.compute_grpo_outcome_advantage(at_end.clone(), mask, group)[0].numpy()
    arrays["centred"] = algos.compute_grpo_outcome_advantage(
        at_end.clone(), mask, group, norm_adv_by_std_in_grpo=False
    )[0].numpy()
    arrays["leave_one_out"] = algos.compute_rloo_outcome_advantage(at_end.clone(), mask, group)[0].numpy()
    unknown = rewards.copy()
    unknown[1] = unknown[-1] = unknown[-2] = np.nan  # what TRL calls unscorable: one of a group, and all but one
    arrays["trl_leave_one_out"] = trl_rloo(given("unknown", unknown)).numpy()
    greedy = given("greedy", rng.normal(size=GROUPS).astype(np.float32))
    arrays["greedy_baseline"] = algos.compute_remax_outcome_advantage(
        at_end, greedy.repeat_interleave(SIZE), mask
    )[0].numpy()
    # With a gap in the middle of the second row: what a tool has said.
    gaps = arrays["given/mask"].copy()
    gaps[np.argmax(lengths), 2] = 0.0
    tokens = given("token_rewards", rng.normal(size=(ROWS, LENGTH)).astype(np.float32))
    found = algos.compute_reinforce_plus_plus_outcome_advantage(
        tokens, given("gaps", gaps), config=SimpleNamespace(gamma=DISCOUNT)
    )
    arrays["whitened"], arrays["returns"] = (x.numpy() for x in found)

    log_probs = given("log_probs", -rng.uniform(0.1, 2.0, (ROWS, LENGTH)).astype(np.float32)).requires_grad_()
    noise = rng.normal(size=(ROWS, LENGTH)) * 0.3
    old = given("old_log_probs", (arrays["given/log_probs"] + noise).astype(np.float32))
    advantages = given("advantages", rng.normal(size=(ROWS, LENGTH)).astype(np.float32))
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio_low=CLIPS[0], clip_ratio_high=CLIPS[1]
    )
    loss = algos.compute_policy_loss_gspo(old, log_probs, advantages, mask, config=config)[0]
    arrays["gspo"] = loss.detach().numpy()
    arrays["gspo/gradient"] = torch.autograd.grad(loss, log_probs)[0].numpy()
    log_ratio = log_probs.detach() - old
    for level in ("token", "sequence"):
        weights, _ = correction.compute_rollout_correction_weights(log_ratio, mask, level, CAP)
        arrays[f"truncated/{level}"] = weights.numpy()
    for level, kind in (("token", "token_k1"), ("sequence", "seq_mean_k1")):
        # verl's k1 is minus the log-ratio, so its bounds are ours upside down.
        bounds = f"{1 / BOUNDS[1]}_{1 / BOUNDS[0]}"
        arrays[f"kept/{level}"] = correction.compute_rollout_rejection_mask(log_ratio, mask, kind, bounds)[0].numpy()
    np.savez_compressed(Path(__file__).parent / "verifiable.npz", **arrays)
    print({name: x.shape for name, x in arrays.items()})


if __name__ == "__main__":
    main()

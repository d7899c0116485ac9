"""Writes preference.npz: what TRL's trainers and verl's functions make of random numbers, values and gradients.

Needs the extra `parity` and nothing of this project: python tests/golden/make_preference.py (PROVENANCE.md).
"""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np

PAIRS, LENGTH, VOCABULARY = 5, 9, 7
BETA, SMOOTHING, GAMMA = 0.3, 0.1, 0.5
WEIGHTS = (1.3, 0.7)  # of desirable and undesirable answers


class Record:
    """The arrays that were given and those that were found."""

    def __init__(self):
        self.arrays = {}

    def given(self, name: str, values: np.ndarray):
        import torch

        self.arrays[f"given/{name}"] = values
        return torch.from_numpy(values)

    def keep(self, name: str, loss, variable) -> None:
        """A loss, which is a scalar or an array, and the gradient of its sum."""
        import torch

        self.arrays[name] = loss.detach().numpy()
        self.arrays[f"{name}/gradient"] = torch.autograd.grad(loss.sum(), variable, retain_graph=True)[0].numpy()


def model(logits) -> MagicMock:
    """A model that gives these logits whatever it reads, with the outputs that TRL's trainers ask for."""
    import torch

    def forward(input_ids, labels, **_) -> SimpleNamespace:
        log_probs = torch.log_softmax(logits[:, :-1], -1).gather(-1, input_ids[:, 1:, None])[..., 0]
        log_probs = torch.where(labels[:, 1:] == -100, 0.0, log_probs)
        blank = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=blank, mean_logits=blank, is_top1=blank.bool())

    return MagicMock(side_effect=forward, training=True)


def trainer(**fields) -> MagicMock:
    own = MagicMock(aux_loss_enabled=False, _tp_size=1, precompute_ref_logps=False, beta=BETA, **fields)
    own.accelerator.gather.side_effect = own.accelerator.gather_for_metrics.side_effect = lambda x: x
    own.accelerator.device = "cpu"
    return own


def trl_losses(record: Record, rng: np.random.Generator) -> None:
    import torch
    from trl import DPOTrainer, KTOTrainer, RewardTrainer
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    # Answers of 2 to 6 tokens stand at the end of rows of 9. The first PAIRS are the chosen ones, as TRL has them.
    answers = rng.integers(2, 7, 2 * PAIRS)
    mask = record.given("mask", (np.arange(LENGTH) >= LENGTH - answers[:, None]).astype(np.int64))
    tokens = record.given("tokens", rng.integers(0, VOCABULARY, (2 * PAIRS, LENGTH)))
    shape = (2 * PAIRS, LENGTH, VOCABULARY)
    logits = record.given("logits", rng.normal(size=shape).astype(np.float32)).requires_grad_()
    reference = record.given("reference_logits", rng.normal(size=shape).astype(np.float32))
    inputs = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "completion_mask": mask}
    for name, loss_type in (("dpo", "sigmoid"), ("ipo", "ipo"), ("nca", "nca_pair")):
        own = trainer(
            ld_alpha=None, f_divergence_type="reverse_kl", loss_types=[loss_type], loss_weights=[1.0],
            use_weighting=False, ref_model=model(reference),
        )
        record.keep(name, DPOTrainer._compute_loss(own, model(logits), dict(inputs), False), logits)

    desirable = record.given("desirable", np.arange(2 * PAIRS) % 3 > 0)
    # Of answers to other prompts: the divergence that they give is above 0 in one case and below it in the other.
    for name, shift in (("kto", 1.0), ("kto_below", -1.0)):
        sums = record.given(f"{name}/other", (rng.normal(size=2 * PAIRS) - 9 + shift).astype(np.float32))
        others = record.given(f"{name}/other_reference", (rng.normal(size=2 * PAIRS) - 9).astype(np.float32))
        own = trainer(
            loss_type="kto", calculate_KL=True, desirable_weight=WEIGHTS[0], undesirable_weight=WEIGHTS[1],
            ref_model=model(reference),
        )
        own._compute_kl_logps.side_effect = [sums, others]
        loss = KTOTrainer._compute_loss(own, model(logits), {**inputs, "label": desirable}, False)
        record.keep(name, loss, logits)

    labels = tokens.masked_fill(mask == 0, -100)
    means = ORPOTrainer.get_batch_logps(logits, labels, average_log_prob=True)
    ratio = ORPOTrainer.odds_ratio_loss(trainer(), *means.chunk(2))[0]
    record.keep("orpo", -ratio / BETA, logits)  # TRL's beta is the weight of the term, which is the caller's here
    own = trainer(loss_type="simpo", simpo_gamma=GAMMA, alpha=0.0, label_smoothing=0.0)
    record.keep("simpo", CPOTrainer.cpo_loss(own, *means.chunk(2))[0], logits)
    # Its "sigmoid" smooths labels, and gets log ratios here, so that it is cDPO.
    own = trainer(loss_type="sigmoid", alpha=0.0, label_smoothing=SMOOTHING)
    ratios = record.given("ratios", rng.normal(size=2 * PAIRS).astype(np.float32)).requires_grad_()
    record.keep("cdpo", CPOTrainer.cpo_loss(own, *ratios.chunk(2))[0], ratios)

    rewards = record.given("rewards", rng.normal(size=2 * PAIRS).astype(np.float32)).requires_grad_()
    margin = record.given("margin", rng.uniform(0, 2, PAIRS).astype(np.float32))
    own = trainer()
    own.args.center_rewards_coefficient = None

    def reward_model(**_) -> SimpleNamespace:
        return SimpleNamespace(logits=rewards[:, None])

    for name, more in (("bradley_terry", {}), ("bradley_terry_margin", {"margin": margin})):
        given = {"attention_mask": torch.ones_like(tokens), **more}
        asked = MagicMock(side_effect=reward_model, training=True)
        record.keep(name, RewardTrainer.compute_loss(own, asked, given), rewards)


def verl_functions(record: Record, rng: np.random.Generator) -> None:
    from verl.trainer.ppo.core_algos import AdaptiveKLController, agg_loss, kl_penalty

    log_probs = record.given("log_probs", -rng.uniform(0.1, 2.4, (4, 6)).astype(np.float32)).requires_grad_()
    reference = record.given("reference_log_probs", -rng.uniform(0.1, 2.4, (4, 6)).astype(np.float32))
    # verl cuts k3 at 10, which ours is not: differences of at most 2.3 stay below it.
    for name in ("k1", "k2", "k3"):
        record.keep(name, kl_penalty(log_probs, reference, name), log_probs)
    terms = record.given("terms", rng.normal(size=(4, 6)).astype(np.float32)).requires_grad_()
    counted = record.given("counted", (np.arange(6) < np.array([6, 2, 0, 3])[:, None]).astype(np.float32))
    for name, mode in (("token_mean", "token-mean"), ("sequence_mean", "seq-mean-token-mean")):
        record.keep(name, agg_loss(terms, counted, mode), terms)
    controller, values = AdaptiveKLController(0.2, 6.0, 1000), []
    divergences = record.given("divergences", np.array([5.0, 6.5, 30.0, 0.1]))
    for divergence in divergences.numpy():
        controller.update(divergence, 64)
        values.append(controller.value)
    record.arrays["coefficients"] = np.array(values)


def main() -> None:
    record, rng = Record(), np.random.default_rng(0)
    trl_losses(record, rng)
    verl_functions(record, rng)
    np.savez_compressed(Path(__file__).parent / "preference.npz", **record.arrays)
    print(f"{len(record.arrays)} arrays")


if __name__ == "__main__":
    main()

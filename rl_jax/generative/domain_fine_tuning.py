"""Reinforcement learning of a pretrained generator of a domain: RLCM or DDPO, by the kind of the model."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState, scored
from rl_jax.generative.domain import Domain
from rl_jax.generative.domain_evaluation import domain_evaluation
from rl_jax.generative.fine_tuning import Rewarded, fine_tuning
from rl_jax.generative.policy import Trajectory, random_calls, sample
from rl_jax.generative.rewards import Reward


def domain_fine_tuning(config: ConfigDict, domain: Domain, params: PyTree, score: Reward | None) -> Program:
    """Each step samples `config.batch_size` images of all prompts in turn, rewards them and makes an update.

    The resident holds the pretrained "model", which is also the reference of the KL term, and the "frozen" networks of
    the domain.

    Args:
      params: of the pretrained model.
      score: the reward that the host computes; None where it is the domain's similarity, which is part of the step.
    """
    sampler = domain.sampler(config.model)
    tuning = fine_tuning(config.tuning, sampler, len(domain.names))
    shape, calls_of = (config.batch_size, *domain.images.shape[1:]), random_calls(sampler, config.model.fewest_calls)

    def init(key: Key, resident: PyTree) -> TrainState:
        del key
        return tuning.init(resident["model"])

    def episodes(model: PyTree, key: Key) -> tuple[Trajectory, jax.Array]:
        """Samples images; their prompts are all in turn, or a random subset where the batch is smaller."""
        prompt_key, sample_key = jax.random.split(key)
        order = jax.random.permutation(prompt_key, len(domain.names))
        prompts = order[jnp.arange(config.batch_size) % len(domain.names)]
        num_calls = calls_of(jax.random.fold_in(prompt_key, 1), config.batch_size)
        return sample(sampler, model, shape, prompts, sample_key, num_calls), prompts

    def step_by_similarity(
        state: TrainState, resident: PyTree, batch: None, key: Key
    ) -> tuple[TrainState, Metrics]:
        del batch
        sample_key, update_key = jax.random.split(key)
        trajectory, prompts = episodes(state.params["model"], sample_key)
        similarity = domain.similarity(resident["frozen"], trajectory.final)
        rewards = similarity[jnp.arange(config.batch_size), prompts]
        rewarded = Rewarded.of(trajectory, prompts, prompts, rewards)
        return tuning.update(state, rewarded, update_key, resident["model"])

    def step_of_batch(state: TrainState, resident: PyTree, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        return tuning.update(state, Rewarded(**batch), key, resident["model"])

    @jax.jit
    def sample_all_runs(model: PyTree, frozen: PyTree, keys: Key) -> tuple[Trajectory, jax.Array, jax.Array]:
        def one(model: PyTree, key: Key) -> tuple[Trajectory, jax.Array, jax.Array]:
            trajectory, prompts = episodes(model, key)
            return trajectory, prompts, domain.decode(frozen, trajectory.final)

        return over_runs(one, default_seed_axis())(model, keys)

    def draw(
        state: TrainState, resident: PyTree, keys: Key, step: int
    ) -> tuple[Trajectory, jax.Array, jax.Array]:
        del step
        return sample_all_runs(state.params["model"], resident["frozen"], keys)

    def rewarded(drawn: tuple[Trajectory, np.ndarray, np.ndarray]) -> tuple[PyTree, dict[str, float]]:
        """Returns the batch of all runs as a dictionary, which a checkpoint can hold."""
        trajectory, prompts, pixels = drawn
        texts = np.asarray(domain.names)[prompts]
        rewards = np.stack([score(domain.render(own), named) for own, named in zip(pixels, texts, strict=True)])
        steps = (np.swapaxes(x, 1, 2) for x in (trajectory.states, trajectory.actions, trajectory.log_probs))
        return Rewarded(*steps, trajectory.num_calls, prompts, prompts, rewards)._asdict(), {}

    evaluate, resident = domain_evaluation(config, domain, score), {"model": params, "frozen": domain.frozen}
    if score is None:
        return Program(init, step_by_similarity, evaluate, resident)
    return Program(init, step_of_batch, evaluate, resident, scored(draw, rewarded, config.overlap))

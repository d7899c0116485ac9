"""Reinforcement learning of a pretrained sampler: the host's rewards between two steps, or all on the device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlcm.domain import Domain
from experiments.rlcm.pipeline import reward_of
from experiments.rlcm.pretraining import denoise_of
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.program import Key, Metrics, Program, PyTree, Resident, TrainState, in_turn, overlapped
from rl_jax.generative.consistency import SIGMA_MIN, multistep
from rl_jax.generative.denoising import geometric_levels
from rl_jax.generative.fine_tuning import Rewarded, fine_tuning
from rl_jax.generative.policy import Sampler, Trajectory, ancestral_sampler, consistency_sampler, sample
from rl_jax.generative.rewards import Reward, jpeg_sizes

ALIGNMENT = "alignment"  # the one that the device computes: how much an image looks like its prompt, Judges.scores


def sampler_of(config: ConfigDict, domain: Domain) -> Sampler:
    """RLCM's or DDPO's, by the model's kind."""
    levels = geometric_levels(config.model.num_calls, config.model.least, config.model.most)
    denoise = denoise_of(config.model.kind, domain)
    if config.model.kind == "consistency":
        return consistency_sampler(
            denoise, levels, SIGMA_MIN, last_step=config.model.last_step, reduction=config.model.reduction
        )
    return ancestral_sampler(denoise, levels, reduction=config.model.reduction)


def host_reward(config: ConfigDict) -> Reward | None:
    """The reward that the host computes; None where the device does."""
    return None if config.reward == ALIGNMENT else reward_of(config)


def tuning_program(config: ConfigDict, domain: Domain, params: PyTree) -> Program:
    """Samples `batch_size` images of all prompts in turn, rewards them, and makes an update, in each step."""
    sampler = sampler_of(config, domain)
    tuning = fine_tuning(config.tuning, sampler, len(domain.names))
    judges, shape = domain.judges(), (config.batch_size, *domain.images.shape[1:])

    def init(key: Key) -> TrainState:
        del key
        return tuning.init(params)

    def episodes(model: PyTree, key: Key) -> tuple[Trajectory, jax.Array]:
        """Of `batch_size` images, and their prompts: all in turn, or a random choice where they are more."""
        prompt_key, sample_key = jax.random.split(key)
        order = jax.random.permutation(prompt_key, len(domain.names))
        prompts = order[jnp.arange(config.batch_size) % len(domain.names)]
        return sample(sampler, model, shape, prompts, sample_key), prompts

    score = host_reward(config)
    evaluate = evaluation(config, domain, sampler, score)
    if score is None:

        def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
            sample_key, update_key = jax.random.split(key)
            drawn, prompts = episodes(state.params["model"], sample_key)
            rewards = judges.scores(data, drawn.final)[jnp.arange(config.batch_size), prompts]
            return tuning.update(state, Rewarded.of(drawn, prompts, prompts, rewards), update_key)

        return Program(init, step, Resident(judges.reward), evaluate)

    @jax.jit
    def all_runs(model: PyTree, keys: Key) -> tuple[Trajectory, jax.Array, jax.Array]:
        def one(model: PyTree, key: Key) -> tuple[Trajectory, jax.Array, jax.Array]:
            drawn, prompts = episodes(model, key)
            return drawn, prompts, domain.decode(drawn.final)

        return over_runs(one, default_seed_axis())(model, keys)

    def draw(state: TrainState, keys: Key, step: int) -> tuple[Trajectory, jax.Array, jax.Array]:
        del step
        return all_runs(state.params["model"], keys)

    def rewarded(found: tuple[Trajectory, np.ndarray, np.ndarray]) -> tuple[PyTree, dict[str, float]]:
        """The batch of all runs as a dictionary, which a checkpoint can hold."""
        drawn, prompts, pixels = found
        named = np.asarray(domain.names)[prompts]
        rewards = np.stack([score(domain.render(own), texts) for own, texts in zip(pixels, named, strict=True)])
        steps = (np.swapaxes(x, 1, 2) for x in (drawn.states, drawn.actions, drawn.log_probs))
        return Rewarded(*steps, prompts, prompts, rewards)._asdict(), {}

    def step(state: TrainState, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        return tuning.update(state, Rewarded(**batch), key)

    feed = (overlapped if config.overlap else in_turn)(draw, rewarded)
    return Program(init, step, feed, evaluate)


def evaluation(
    config: ConfigDict, domain: Domain, sampler: Sampler, score: Reward | None
) -> Callable[[TrainState, Key], dict[str, Any]]:
    """Of images of all prompts: their reward and, by all calls and, of a consistency model, by 1 and 2, their bytes as
    a JPEG, the judge's accuracy, and the standard deviation of a pixel among images of one prompt. And the bytes of an
    image without anything on it, which no model can go below.

    `eval/accepted_reward` is the reward where the judge's accuracy is `config.judge_floor` or more, and no number
    elsewhere: the best checkpoint by it is the one at which the judge would have stopped.

    Args:
      score: of the host; None for ALIGNMENT.
    """
    judges, per_prompt = domain.judges(), max(2, config.evaluation_images // len(domain.names))
    prompts = np.repeat(np.arange(len(domain.names), dtype=np.int32), per_prompt)
    texts = [domain.names[prompt] for prompt in prompts]
    shape = (len(prompts), *domain.images.shape[1:])
    calls = {"": sampler.levels}
    if config.model.kind == "consistency":
        calls |= {"_1_step": sampler.levels[:1], "_2_steps": sampler.levels[[0, len(sampler.levels) // 2]]}

    middle = np.asarray(jax.jit(domain.decode)(jnp.zeros((1, *shape[1:]))))
    flat = float(jpeg_sizes(domain.render(np.full_like(middle, middle.mean())))[0])

    def images(model: PyTree, levels: np.ndarray, key: Key) -> jax.Array:
        if config.model.kind == "consistency":
            return multistep(sampler.denoise, model, levels, SIGMA_MIN, shape, prompts, key)
        return sample(sampler, model, shape, prompts, key).final

    @jax.jit
    def all_runs(models: PyTree, key: Key) -> dict[str, tuple[jax.Array, jax.Array, jax.Array | None]]:
        """By the calls, of each run: pixels, whether the judge sees what was asked for, and a reward by the device."""

        def one(model: PyTree, levels: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array | None]:
            drawn = images(model, levels, key)
            right = judges.log_probs(judges.judge, drawn).argmax(-1) == prompts
            if score is not None:  # the host's
                return domain.decode(drawn), right, None
            return domain.decode(drawn), right, judges.scores(judges.reward, drawn)[jnp.arange(len(prompts)), prompts]

        return {name: jax.lax.map(functools.partial(one, levels=levels), models) for name, levels in calls.items()}

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        found = {"eval/flat_bytes": flat}
        for name, drawn in all_runs(state.params["model"], key).items():
            pixels, right, rewards = jax.device_get(drawn)
            found[f"eval/judge_accuracy{name}"] = right.mean(-1, dtype=np.float64)
            grouped = pixels.reshape(len(pixels), len(domain.names), per_prompt, -1)
            found[f"eval/std_within_prompt{name}"] = grouped.std(2).mean((1, 2)).astype(np.float64)
            rendered = [domain.render(one) for one in pixels]
            found[f"eval/bytes{name}"] = np.stack([jpeg_sizes(one).mean() for one in rendered])
            if not name:
                rewards = rewards if score is None else np.stack([score(one, texts) for one in rendered])
                found["eval/reward"] = rewards.mean(-1, dtype=np.float64)
        accepted = found["eval/judge_accuracy"] >= config.judge_floor
        return found | {"eval/accepted_reward": np.where(accepted, found["eval/reward"], np.nan)}

    return evaluate

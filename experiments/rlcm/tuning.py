"""Reinforcement learning of a pretrained sampler: the host's rewards between two steps, or all on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from experiments.rlcm.domain import Domain, Judges
from experiments.rlcm.pretraining import denoise_of
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.program import Feed, Key, Metrics, Program, PyTree, Resident, TrainState, overlapped
from rl_jax.generative.consistency import SIGMA_MIN, multistep
from rl_jax.generative.denoising import geometric_levels
from rl_jax.generative.fine_tuning import Rewarded, fine_tuning
from rl_jax.generative.policy import Sampler, Trajectory, ancestral_sampler, consistency_sampler, sample
from rl_jax.generative.rewards import jpeg_sizes, reward

ALIGNMENT = "alignment"  # the one that the device computes: log-probability of the prompt by a classifier


def sampler_of(config: ConfigDict, domain: Domain) -> Sampler:
    """RLCM's or DDPO's, by the model's kind."""
    levels = geometric_levels(config.model.num_calls, config.model.least, config.model.most)
    denoise = denoise_of(config.model.kind, domain)
    if config.model.kind == "consistency":
        return consistency_sampler(
            denoise, levels, SIGMA_MIN, last_step=config.model.last_step, reduction=config.model.reduction
        )
    return ancestral_sampler(denoise, levels, reduction=config.model.reduction)


def tuning_program(config: ConfigDict, domain: Domain, params: PyTree, judges: Judges) -> Program:
    """Samples `batch_size` images of all prompts in turn, rewards them, and makes an update, in each step."""
    sampler = sampler_of(config, domain)
    tuning = fine_tuning(config.tuning, sampler, len(domain.names))
    image_shape, prompts = domain.images.shape[1:], np.arange(config.batch_size, dtype=np.int32) % len(domain.names)

    def init(key: Key) -> TrainState:
        del key
        return tuning.init(params)

    def images_of(state: TrainState, key: Key) -> Trajectory:
        return sample(sampler, state.params["model"], (config.batch_size, *image_shape), prompts, key)

    evaluate = evaluation(config, domain, judges, sampler)
    if config.reward == ALIGNMENT:

        def step(state: TrainState, data: PyTree, key: Key) -> tuple[TrainState, Metrics]:
            sample_key, update_key = jax.random.split(key)
            drawn = images_of(state, sample_key)
            rewards = judges.log_probs(data, drawn.final)[jnp.arange(config.batch_size), prompts]
            return tuning.update(state, Rewarded.of(drawn, prompts, prompts, rewards), update_key)

        return Program(init, step, Resident(judges.reward), evaluate)

    score = reward(config.reward)

    @jax.jit
    def all_runs(model: PyTree, keys: Key) -> Trajectory:
        one = lambda model, key: sample(sampler, model, (config.batch_size, *image_shape), prompts, key)  # noqa: E731
        return over_runs(one, default_seed_axis())(model, keys)

    def draw(state: TrainState, keys: Key, step: int) -> Trajectory:
        del step
        return all_runs(state.params["model"], keys)

    def rewarded(drawn: Trajectory) -> tuple[PyTree, dict[str, float]]:
        """The batch of all runs as a dictionary, which a checkpoint can hold."""
        rewards = np.stack([score(domain.render(images), prompts) for images in np.asarray(drawn.final)])
        tiled = np.broadcast_to(prompts, rewards.shape)
        steps = (np.swapaxes(x, 1, 2) for x in (drawn.states, drawn.actions, drawn.log_probs))
        return Rewarded(*steps, tiled, tiled, rewards)._asdict(), {}

    def collect(state: TrainState, keys: Key, step: int) -> tuple[PyTree, dict[str, float]]:
        return rewarded(jax.device_get(draw(state, keys, step)))

    def step(state: TrainState, batch: PyTree, key: Key) -> tuple[TrainState, Metrics]:
        return tuning.update(state, Rewarded(**batch), key)

    feed = overlapped(draw, rewarded) if config.overlap else Feed(collect, dict, lambda saved: None)
    return Program(init, step, feed, evaluate)


def evaluation(
    config: ConfigDict, domain: Domain, judges: Judges, sampler: Sampler
) -> Callable[[TrainState, Key], dict[str, Any]]:
    """Of images of all prompts by all calls and, of a consistency model, by 1 and 2: their bytes as a JPEG, the judge's
    accuracy, and the standard deviation of a pixel among images of one prompt. And the bytes of an image without
    anything on it, which no model can go below."""
    per_prompt = config.evaluation_images // len(domain.names)
    prompts = np.repeat(np.arange(len(domain.names), dtype=np.int32), per_prompt)
    shape = (len(prompts), *domain.images.shape[1:])
    calls = {"": sampler.levels}
    if config.model.kind == "consistency":
        calls |= {"_1_step": sampler.levels[:1], "_2_steps": sampler.levels[[0, len(sampler.levels) // 2]]}

    flat = float(jpeg_sizes(domain.render(np.zeros((1, *shape[1:]), np.float32)))[0])

    def images(model: PyTree, levels: np.ndarray, key: Key) -> jax.Array:
        if config.model.kind == "consistency":
            return multistep(sampler.denoise, model, levels, SIGMA_MIN, shape, prompts, key)
        return sample(sampler, model, shape, prompts, key).final

    @jax.jit
    def all_runs(models: PyTree, key: Key) -> dict[str, jax.Array]:
        return {
            name: jax.lax.map(lambda model, levels=levels: images(model, levels, key), models)
            for name, levels in calls.items()
        }

    def evaluate(state: TrainState, key: Key) -> dict[str, Any]:
        found = {"eval/flat_bytes": flat}
        for name, drawn in all_runs(state.params["model"], key).items():
            right = jax.vmap(lambda x: judges.log_probs(judges.judge, x).argmax(-1) == prompts)(drawn)
            found[f"eval/judge_accuracy{name}"] = np.asarray(right.mean(-1), np.float64)
            grouped = np.asarray(drawn).reshape(len(drawn), len(domain.names), per_prompt, -1)
            found[f"eval/std_within_prompt{name}"] = grouped.std(2).mean((1, 2)).astype(np.float64)
            sizes = np.stack([jpeg_sizes(domain.render(one)) for one in np.asarray(drawn)])
            found[f"eval/bytes{name}"] = sizes.mean(1)
        return found

    return evaluate

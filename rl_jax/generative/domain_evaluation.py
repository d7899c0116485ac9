"""What generated images of a domain are worth, and what an independent judge sees in them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.program import Evaluate, Evaluation, Key, PyTree, TrainState
from rl_jax.generative.consistency import SIGMA_MIN, multistep
from rl_jax.generative.domain import Domain
from rl_jax.generative.policy import sample
from rl_jax.generative.rewards import Reward, jpeg_sizes


def domain_evaluation(config: ConfigDict, domain: Domain, score: Reward | None) -> Evaluate:
    """Samples `config.evaluation_images` images, the same number of each prompt but at least two, and measures them.

    Outcomes, by all calls of the model and, of a consistency model, by 1 and 2 calls (`_1_step`, `_2_steps`):
      bytes [S, E]: of each image as a JPEG file of quality 95.
      judge_accuracy [S, E]: 1 where the judge recognises the prompt, else 0.
    Outcomes by all calls alone:
      reward [S, E].
      std_within_prompt [S, P]: the standard deviation of a pixel among the images of a prompt, mean over pixels.
      flat_bytes [S, 1]: of a JPEG file of one colour, below which no model can go.
    The metric `eval/accepted_reward` [S] is the mean reward where the judge's mean accuracy is `config.judge_floor` or
    more, and NaN elsewhere: the best checkpoint by it is where the judge would have stopped.

    Args:
      score: the reward that the host computes; None where it is the domain's similarity.
    """
    sampler = domain.sampler(config.model)
    per_prompt = max(2, config.evaluation_images // len(domain.names))
    prompts = np.repeat(np.arange(len(domain.names), dtype=np.int32), per_prompt)
    texts = [domain.names[prompt] for prompt in prompts]
    shape = (len(prompts), *domain.images.shape[1:])
    levels = {"": sampler.levels}
    if config.model.kind == "consistency":
        levels |= {"_1_step": sampler.levels[:1], "_2_steps": sampler.levels[[0, len(sampler.levels) // 2]]}

    @jax.jit
    def sampled(
        models: PyTree, frozen: PyTree, levels: jax.Array, num_calls: jax.Array, key: Key
    ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Pixels [S, E, ...], whether the judge recognises the prompt [S, E], and the similarity [S, E] or None."""

        def one(params: PyTree) -> tuple[jax.Array, jax.Array, jax.Array | None]:
            if config.model.kind == "consistency":
                images = multistep(sampler.denoise, params, levels, SIGMA_MIN, shape, prompts, key, num_calls)
            else:
                images = sample(sampler, params, shape, prompts, key).final
            recognised = domain.judge(frozen, images).argmax(-1) == prompts
            rewards = None if score else domain.similarity(frozen, images)[jnp.arange(len(prompts)), prompts]
            return domain.decode(frozen, images), recognised, rewards

        return jax.lax.map(one, models)

    @functools.cache
    def flat_bytes() -> int:
        pixels = np.asarray(jax.jit(domain.decode)(domain.frozen, jnp.zeros((1, *shape[1:]))))
        return int(jpeg_sizes(domain.render(np.full_like(pixels, pixels.mean())))[0])

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        outcomes = {}
        for name, own in levels.items():
            # All samplers have arguments of one shape, so that they share one compiled function.
            padded = np.pad(own, (0, len(sampler.levels) - len(own)), constant_values=1.0)
            found = sampled(state.params["model"], resident["frozen"], padded, np.int32(len(own)), key)
            pixels, recognised, rewards = jax.device_get(found)
            rendered = [domain.render(one) for one in pixels]
            outcomes[f"bytes{name}"] = np.stack([jpeg_sizes(one) for one in rendered])
            outcomes[f"judge_accuracy{name}"] = recognised.astype(np.float32)
            if not name:
                grouped = pixels.reshape(len(pixels), len(domain.names), per_prompt, -1)
                outcomes["std_within_prompt"] = grouped.std(2).mean(-1)
                outcomes["reward"] = np.stack([score(one, texts) for one in rendered]) if score else rewards
                outcomes["flat_bytes"] = np.full((len(pixels), 1), flat_bytes())
        accuracy, reward = (outcomes[name].mean(-1, dtype=np.float64) for name in ("judge_accuracy", "reward"))
        return Evaluation({"eval/accepted_reward": np.where(accuracy >= config.judge_floor, reward, np.nan)}, outcomes)

    return evaluate

"""RLZero with a simulated body: FB on data of Gymnasium's MuJoCo tasks, clips of another policy, returns in the task.

The clip is filmed of a stored policy, from the side, and so the video model is replaced here too; the body in it may
be of another colour and thickness than the agent's.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.fb import embed, fb
from rl_jax.control.offline import AgentData, load, standardised
from rl_jax.control.tasks import check_task, headline_of, judge_in, task_of
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.experts.experts import expert_episodes, load_expert
from rl_jax.data.preprocess import prepare_episodes
from rl_jax.data.transitions import sample
from rl_jax.envs.velocity_maze import SPRITES
from rl_jax.evaluation.render import body_pictures
from rl_jax.generative.embedders import make_embedder, nearest, stacked
from rl_jax.losses.forward_backward import imitation_latent, on_sphere, reward_latent

ARMS = ("projected", "true", "reward")
THICKNESS = {"own": 1.0, "square": 1.6, "cross": 0.6}  # of the bodies in clips


def body_experiment(config: ConfigDict) -> Experiment:
    """FB on `config.dataset`, judged in its task by the latent of `config.imagine.arm`.

    Raises:
      ValueError: there is no such arm or sprite.
    """
    own = config.imagine
    for kind, name, known in (("arm", own.arm, ARMS), ("sprite", own.sprite, THICKNESS)):
        if name not in known:
            raise ValueError(unknown(f"{kind} in config.imagine.{kind}", name, known))
    dataset = load(config.dataset)
    task = task_of(config, dataset)
    with task.open(1) as pool:
        check_task(pool, dataset)
    episodes, mean, std = prepare_episodes(
        dataset.episodes, top_fraction=1.0, normalize_observations=True, scale_rewards=False
    )
    transitions = episodes.to_transitions()
    data = AgentData(transitions, sample, {"observation_mean": mean, "observation_std": std},
                     transitions.actions.shape[1:])
    shown = clip_states(config, dataset.episodes, task.env_id) if own.arm != "reward" else None
    rows = np.random.default_rng(0).choice(len(transitions), min(config.embedder.states, len(transitions)), False)
    seen, rewards = transitions.next_observations[rows], transitions.rewards[rows]
    judge = judge_in(task, config)

    def program(config: ConfigDict) -> Program:
        agent = fb(config.agent, data.action[0])

        def init(key: Key, resident: PyTree) -> TrainState:
            return agent.init(key, sample(resident, key, 1)).replace(extra=dict(data.statistics))

        def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            del batch
            batch_key, update_key = jax.random.split(key)
            return agent.update(state, shard_batch(sample(resident, batch_key, config.batch_size)), update_key)

        def latent(params: PyTree, extra: PyTree) -> jax.Array:
            if shown is None:
                return on_sphere(reward_latent(jnp.asarray(rewards), embed(config.agent, params, jnp.asarray(seen))))
            states = standardised(jnp.asarray(shown), extra)
            return on_sphere(imitation_latent(embed(config.agent, params, states)))

        def act(policy: Any, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
            params, extra = policy
            latents = jnp.broadcast_to(latent(params, extra), (len(observations), config.agent.latent_dim))
            return agent.act(params, (standardised(observations, extra), latents), key, temperature)

        return Program(init, step, judge(act, None), data.resident)

    inputs = dataset.inputs | {"env_id": task.label, "imagination": f"filmed of {own.policy}",
                               "embedder": config.embedder.name}
    return Experiment(program, inputs, headline_of(task.label, config))


def clip_states(config: ConfigDict, episodes: Any, env_id: str) -> np.ndarray:
    """The observations [L, O] that z_imit is made of: the clip's own ("true"), or the data's that look like its frames.

    Windows of `config.embedder.window` pictures are compared, which tell how a body moves.
    """
    own, film = config.imagine, config.embedder
    clip = expert_episodes(env_id, load_expert(own.policy), 1, seed=0, time_limit=own.frames).observations[: own.frames]
    if own.arm == "true":
        return clip
    # Whole stretches of episodes, so that windows are consecutive, from all over the data.
    lengths = np.minimum(episodes.lengths, film.stretch)
    chosen = np.random.default_rng(0).permutation(episodes.num_episodes)
    chosen = chosen[: max(int(np.searchsorted(np.cumsum(lengths[chosen]), film.states)), 1)]
    rows = np.concatenate([episodes.starts[e] + np.arange(lengths[e]) for e in chosen])
    begins = np.concatenate([[0], np.cumsum(lengths[chosen])[:-1]])
    states = episodes.observations[rows]
    pictures = body_pictures(env_id, states, film.pixels, SPRITES["own"].colour)
    embed_pictures = make_embedder(film.name, pictures, film.path)
    table = stacked(embed_pictures(pictures), begins, film.window)
    frames = body_pictures(env_id, clip, film.pixels, SPRITES[own.sprite].colour, THICKNESS[own.sprite])
    return states[nearest(stacked(embed_pictures(frames), [0], film.window), table)]

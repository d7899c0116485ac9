"""A host-fed program: Q-learning on Gymnasium's CartPole, with exploration and a replay buffer on the host.

Every random number on the host comes from the keys that the core hands to `collect`, so the Feed has no generator to
save: environments, episodes and buffers are its whole state.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.core.extras import require
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Feed, Program, TrainState
from rl_jax.core.runtime import from_main_process

HEADLINE = "eval/return"
WIDTH, LIMIT, CAPACITY = 16, 50, 64


def get_config(preset: str = "tiny") -> ConfigDict:
    def tiny() -> ConfigDict:
        config = core_config()
        config.batch_size = 16
        config.env_steps = 4
        config.epsilon = 0.3
        config.learning_rate = 1e-2
        return config

    return from_preset("host_fed", {"tiny": tiny}, preset)


def q_values(params, observations):
    """Works on numpy and on jax arrays alike."""
    hidden = observations @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    return (hidden * (hidden > 0)) @ params["out"]["kernel"] + params["out"]["bias"]


class Run:
    """The host's side of one training run: one environment and its replay buffer."""

    def __init__(self):
        self.env = require("gymnasium", "mujoco").make("CartPole-v1").unwrapped
        self.observation = None
        self.time = 0
        self.stored = 0
        self.buffer = {
            "observations": np.zeros((CAPACITY, 4), np.float32),
            "actions": np.zeros(CAPACITY, np.int32),
            "rewards": np.zeros(CAPACITY, np.float32),
            "masks": np.zeros(CAPACITY, np.float32),
            "next_observations": np.zeros((CAPACITY, 4), np.float32),
        }

    def act(self, params, rng, steps, epsilon):
        for _ in range(steps):
            if self.observation is None:
                self.observation, _ = self.env.reset(seed=int(rng.integers(2**31)))
                self.time = 0
            explore, choice = rng.random() < epsilon, int(rng.integers(2))
            action = choice if explore else int(np.argmax(q_values(params, self.observation)))
            following, reward, terminated, _, _ = self.env.step(action)
            self.time += 1
            row = (self.observation, action, reward, 1.0 - terminated, following)
            for column, value in zip(self.buffer.values(), row, strict=True):
                column[self.stored % CAPACITY] = value
            self.stored += 1
            self.observation = None if terminated or self.time >= LIMIT else following

    def sample(self, rng, size):
        rows = rng.integers(min(self.stored, CAPACITY), size=size)
        return {name: column[rows] for name, column in self.buffer.items()}

    def save(self):
        running = self.observation is not None
        return {
            "physics": np.asarray(self.env.state if running else np.zeros(4), np.float64),
            "observation": self.observation if running else np.zeros(4, np.float32),
            "running": running,
            "time": self.time,
            "stored": self.stored,
            "buffer": {name: column.copy() for name, column in self.buffer.items()},
        }

    @classmethod
    def restored(cls, saved):
        run = cls()
        if saved["running"]:
            run.env.reset()
            run.env.state = saved["physics"].copy()
            run.observation = saved["observation"]
        run.time, run.stored = saved["time"], saved["stored"]
        run.buffer = {name: saved["buffer"][name].copy() for name in run.buffer}
        return run


def make_program(config: ConfigDict, workdir) -> tuple[Program, dict]:
    del workdir
    optimizer = optax.adam(config.learning_rate)
    runs: list[Run] = []

    def init(key):
        keys = jax.random.split(key)
        params = {
            "hidden": {"kernel": jax.random.normal(keys[0], (4, WIDTH)) * 0.5, "bias": jnp.zeros(WIDTH)},
            "out": {"kernel": jax.random.normal(keys[1], (WIDTH, 2)) * 0.1, "bias": jnp.zeros(2)},
        }
        # A network and its slow copy must not share buffers: both are donated.
        return TrainState.create({"q": params}, optimizer.init(params), {"q": jax.tree.map(jnp.copy, params)})

    def step(state, batch, key):
        del key
        batch = shard_batch(batch)

        def loss_fn(params):
            q = jnp.take_along_axis(q_values(params, batch["observations"]), batch["actions"][:, None], -1)[:, 0]
            following = jnp.max(q_values(state.target_params["q"], batch["next_observations"]), -1)
            loss = jnp.mean((batch["rewards"] + 0.95 * batch["masks"] * following - q) ** 2)
            return loss, {"critic/loss": loss, "critic/q_mean": jnp.mean(q)}

        grads, info = jax.grad(loss_fn, has_aux=True)(state.params["q"])
        updates, opt_state = optimizer.update(grads, state.opt_state)
        params = optax.apply_updates(state.params["q"], updates)
        target = optax.incremental_update(params, state.target_params["q"], 0.1)
        return state.replace(params={"q": params}, target_params={"q": target}, opt_state=opt_state), info

    def by_run(state):
        params = jax.device_get(gather(state.params["q"]))
        return [jax.tree.map(lambda x: x[run], params) for run in range(config.num_seeds)]

    def collect(state, keys, step):
        del step
        if not runs:
            runs.extend(Run() for _ in range(config.num_seeds))
        batches = []
        for run, params, words in zip(runs, by_run(state), np.asarray(jax.random.key_data(keys)), strict=True):
            # Every process acts in environments of its own.
            rng = np.random.default_rng([*words.tolist(), jax.process_index()])
            run.act(params, rng, config.env_steps, config.epsilon)
            batches.append(run.sample(rng, config.batch_size // jax.process_count()))
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
        return batch, {"collect/rewards": float(np.mean(batch["rewards"]))}

    def save():
        return {"runs": [run.save() for run in runs]}

    def restore(saved):
        runs[:] = [Run.restored(one) for one in saved["runs"]]

    def episode_return(params, seed):
        env = require("gymnasium", "mujoco").make("CartPole-v1").unwrapped
        observation, _ = env.reset(seed=seed)
        for time in range(LIMIT):
            observation, _, terminated, _, _ = env.step(int(np.argmax(q_values(params, observation))))
            if terminated:
                return time + 1.0
        return float(LIMIT)

    def evaluate(state, key):
        seeds = np.random.default_rng(np.asarray(jax.random.key_data(key))).integers(2**31, size=2).tolist()
        every = by_run(state)
        returns = from_main_process(lambda: [[episode_return(params, seed) for seed in seeds] for params in every])
        return {HEADLINE: np.mean(returns, axis=1)}

    return Program(init, step, Feed(collect, save, restore), evaluate), {"environment": "CartPole-v1"}

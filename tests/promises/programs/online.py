"""A pure-JAX online program: one step acts in a batch of chain walks and updates an actor-critic on what it saw.

The walker starts at the left end of a chain and gains by reaching the right one. The environments' states are part of
`TrainState.extra`, the chain's parameters are the resident data.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from rl_jax.core.config import core_config, from_preset
from rl_jax.core.mesh import gather, shard_batch
from rl_jax.core.program import Program, Resident, TrainState
from rl_jax.core.runtime import from_main_process

HEADLINE = "eval/return"
PLACES, WIDTH, LIMIT = 5, 16, 20


def get_config(preset: str = "tiny") -> ConfigDict:
    def tiny() -> ConfigDict:
        config = core_config()
        config.batch_size = 16
        config.horizon = 4
        config.learning_rate = 1e-2
        return config

    return from_preset("online", {"tiny": tiny}, preset)


def logits_and_value(params, positions):
    x = jax.nn.one_hot(positions, PLACES)
    hidden = jnp.tanh(x @ params["policy"]["hidden"]["kernel"])
    return hidden @ params["policy"]["logits"]["kernel"], (x @ params["value"]["kernel"])[..., 0]


def make_program(config: ConfigDict, workdir) -> tuple[Program, dict]:
    del workdir
    optimizer = optax.adam(config.learning_rate)

    def init(key):
        keys = jax.random.split(key, 3)
        params = {
            "policy": {
                "hidden": {"kernel": jax.random.normal(keys[0], (PLACES, WIDTH)) * 0.5},
                "logits": {"kernel": jax.random.normal(keys[1], (WIDTH, 2)) * 0.1},
            },
            "value": {"kernel": jnp.zeros((PLACES, 1))},
        }
        start = jnp.zeros(config.batch_size, jnp.int32)
        # Walks that start apart in time end apart in time.
        time = jax.random.randint(keys[2], (config.batch_size,), 0, LIMIT)
        return TrainState.create(params, optimizer.init(params), extra={"position": start, "time": time})

    def step(state, data, key):
        def move(walk, key):
            act_key, slip_key = jax.random.split(key)
            logits, _ = logits_and_value(state.params, walk["position"])
            actions = jax.random.categorical(act_key, logits)
            slips = jax.random.uniform(slip_key, actions.shape) < data["slip"]
            position = jnp.clip(walk["position"] + jnp.where(slips, 0, 2 * actions - 1), 0, PLACES - 1)
            time = walk["time"] + 1
            over = time >= LIMIT
            seen = (walk["position"], actions, data["rewards"][position], position, 1.0 - over)
            return {"position": jnp.where(over, 0, position), "time": jnp.where(over, 0, time)}, seen

        walk, (positions, actions, rewards, following, masks) = jax.lax.scan(
            move, shard_batch(state.extra), jax.random.split(key, config.horizon)
        )

        def loss_fn(params):
            logits, values = logits_and_value(params, positions)
            _, next_values = logits_and_value(params, following)
            errors = rewards + 0.9 * masks * jax.lax.stop_gradient(next_values) - values
            log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], -1)[..., 0]
            critic_loss = jnp.mean(errors**2)
            actor_loss = -jnp.mean(log_probs * jax.lax.stop_gradient(errors))
            return actor_loss + critic_loss, {"actor/loss": actor_loss, "critic/loss": critic_loss}

        grads, info = jax.grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        info |= {"rewards/mean": jnp.mean(rewards), "grad/norm": optax.global_norm(grads)}
        new = state.replace(params=optax.apply_updates(state.params, updates), opt_state=opt_state, extra=walk)
        return new, info

    rewards = np.linspace(0.0, 1.0, PLACES, dtype=np.float32) ** 3
    data = {"rewards": rewards, "slip": np.float32(0.1)}

    def expected_return(params):
        """Of one run's stochastic policy, exactly: the distribution over places is pushed forward LIMIT times."""
        hidden = np.tanh(params["policy"]["hidden"]["kernel"].astype(np.float64))
        logits = hidden @ params["policy"]["logits"]["kernel"]
        right = 1.0 / (1.0 + np.exp(logits[:, 0] - logits[:, 1]))
        transition = np.zeros((PLACES, PLACES))
        for place in range(PLACES):
            transition[place, place] += 0.1
            transition[place, min(place + 1, PLACES - 1)] += 0.9 * right[place]
            transition[place, max(place - 1, 0)] += 0.9 * (1 - right[place])
        places, total = np.eye(PLACES)[0], 0.0
        for _ in range(LIMIT):
            places = places @ transition
            total += float(places @ rewards)
        return total

    def evaluate(state, key):
        del key
        params = gather(state.params)

        def returns():
            host = jax.device_get(params)
            return [expected_return(jax.tree.map(lambda x: x[run], host)) for run in range(config.num_seeds)]

        return {HEADLINE: from_main_process(returns)}

    return Program(init, step, Resident(data), evaluate), {"places": PLACES}

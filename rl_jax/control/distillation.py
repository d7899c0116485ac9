"""A trained network policy written as a few polynomial terms (Zolman et al. 2024, arXiv 2403.09110).

The network acts in the surrogate on noisy observations; its own actions there are what polynomials are fitted to, one
ensemble for every threshold and ridge. In the paper the closest few play in the real environment, and the best of them
is taken. But polynomials of the same error earn 200 or 870, so what they earn in the surrogate, which costs no real
step, may say who is taken ("surrogate" in place of "error"). Every further step of the program is one more attempt: the
best polynomial so far acts in the surrogate, the network is asked what it would have done there, and all is fitted anew
(DAgger; Ross, Gordon and Bagnell 2011, arXiv 1011.0686).
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.online import OnlineAgent, collect, start
from rl_jax.control.dyna import Real, agent_for_its_policy, reward_of, start_fitted
from rl_jax.control.dynamics import make_dynamics
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.envs.environment import Environment
from rl_jax.envs.surrogate import World, surrogate
from rl_jax.losses.sparse_regression import Term, bootstraps, features, monomials, stlsq

# What a run of the Dyna loop hands over: `config.init_from.names`.
TAKEN = "params/actor_critic|extra/fitted"


def policy_terms(config: ConfigDict, world: World) -> tuple[Term, ...]:
    """The dictionary of the policy, with a constant."""
    return monomials(len(world.variables), config.distil.degree, constant=True)


def polynomial_act(config: ConfigDict, world: World, coefficients: jax.Array, observations: jax.Array) -> jax.Array:
    """Actions [..., A] of coefficients [P, A], clipped."""
    found = features(policy_terms(config, world), observations) @ coefficients
    return jnp.clip(found, -config.distil.clip, config.distil.clip)


def fit_policies(
    config: ConfigDict, world: World, observations: jax.Array, actions: jax.Array, valid: jax.Array, key: Key
) -> tuple[jax.Array, jax.Array]:
    """An ensemble polynomial for each threshold and ridge: [N, O], [N, A] and [N] bool -> (coefficients [G, P, A], the
    mean squared error of the clipped output [G])."""
    distil = config.distil
    columns = features(policy_terms(config, world), observations)
    settings = np.array(list(itertools.product(distil.thresholds, distil.ridges)))
    columns, actions = (jnp.where(valid[:, None], x, 0.0) for x in (columns, actions))
    weights, allowed = bootstraps(key, valid, columns.shape[1], distil.members, distil.dropped)

    def of_member(weights: jax.Array, allowed: jax.Array) -> jax.Array:
        def of_setting(threshold: jax.Array, ridge: jax.Array) -> jax.Array:
            return stlsq(
                columns, actions, threshold=threshold, ridge=ridge, weights=weights, allowed=allowed,
                unbias=distil.unbias,
            )

        return jax.vmap(of_setting)(*jnp.asarray(settings, jnp.float32).T)

    found = jnp.median(jax.lax.map(lambda one: of_member(*one), (weights, allowed)), 0)
    clipped = jax.vmap(lambda own: polynomial_act(config, world, own, observations))(found)
    errors = jnp.mean(jnp.square(clipped - actions), 2)
    return found, jnp.sum(jnp.where(valid, errors, 0.0), 1) / jnp.sum(valid)


def surrogate_return(
    config: ConfigDict, world: World, model: Environment, key: Key, coefficients: jax.Array
) -> jax.Array:
    """What a polynomial earns in the surrogate in an episode, a mean over `distil.copies`."""
    copies = start(model, config.distil.copies, key)
    _, steps, _ = collect(
        model, copies, lambda seen, _: polynomial_act(config, world, coefficients, seen), jnp.zeros(config.horizon), key
    )
    ended = jnp.cumsum(steps.ends, 0) - steps.ends  # before this step
    return jnp.mean(jnp.sum(jnp.where(ended > 0, 0.0, steps.rewards), 0))


def distillation_program(config: ConfigDict, world: World, real: Real) -> Program:
    """One step distils the policy of `config.init_from`; further ones are further attempts.

    Outcomes: "return" [S, E] of the polynomial and "network_return" [S, E] of the network's mode in the real
    environment; [S, 1]: "terms" (its coefficients that are not zero), "parameters" (of the network's policy), and
    "samples", the real steps that choosing among finalists took.

    Raises:
      ValueError: what to choose by is neither "error" nor "surrogate".
    """
    if config.distil.choose not in ("error", "surrogate"):
        raise ValueError(f"config.distil.choose={config.distil.choose!r}: choose error or surrogate")
    distil, dynamics = config.distil, make_dynamics(config.model, world)
    num_terms, num_actions = len(policy_terms(config, world)), len(world.actions)
    agent = agent_for_its_policy(config, world, real)
    low, high, num_rows = -distil.clip, distil.clip, distil.steps * distil.copies

    def init(key: Key, resident: PyTree) -> TrainState:
        agent_key, model_key = jax.random.split(key)
        state = agent.init(agent_key)
        policies = jnp.zeros((distil.finalists, num_terms, num_actions)), jnp.full(distil.finalists, -jnp.inf)
        return TrainState.create(state.params, {}, extra={
            "fitted": start_fitted(config, world, dynamics, model_key), "policies": policies[0], "worth": policies[1],
            "seen": jnp.zeros((config.num_steps, num_rows, len(world.variables))),
        })

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        start_key, noise_key, collect_key, fit_key = jax.random.split(key, 4)
        made = state.extra["fitted"]
        model = surrogate(
            world, lambda *inputs: dynamics.predict(made.model, *inputs), reward_of(config, world, made.reward),
            resident, (made.low, made.high), config.horizon,
        )

        def mode(observations: jax.Array) -> jax.Array:
            return jnp.clip(agent.act(state.params, observations, key, 0.0), low, high)

        def choose(observations: jax.Array, noise: jax.Array) -> jax.Array:
            polynomial = polynomial_act(config, world, state.extra["policies"][0], observations + noise)
            return jnp.where(state.step == 0, mode(observations + noise), polynomial)

        copies = start(model, distil.copies, start_key)
        noise = distil.noise * jax.random.normal(
            noise_key, (distil.steps, distil.copies, len(world.variables))
        )
        _, steps, _ = collect(model, copies, choose, noise, collect_key)
        seen = state.extra["seen"].at[state.step].set((steps.observations + noise).reshape(num_rows, -1))
        valid = jnp.repeat(jnp.arange(config.num_steps) <= state.step, num_rows)
        rows = seen.reshape(len(valid), -1)
        policies, errors = fit_policies(config, world, rows, mode(rows), valid, fit_key)
        worth = jax.vmap(functools.partial(surrogate_return, config, world, model, collect_key))(policies)
        worth = -errors if distil.choose == "error" else worth
        policies = jnp.concatenate([state.extra["policies"], policies])
        worth = jnp.concatenate([state.extra["worth"], worth])
        best = jnp.argsort(-worth)[: distil.finalists]
        extra = {**state.extra, "policies": policies[best], "worth": worth[best], "seen": seen}
        return state.replace(extra=extra), {"distil/error": jnp.min(errors), "distil/worth": worth[best[0]]}

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return polynomial_act(config, world, params["polynomial"], observations)

    polynomial, network = real.judge(OnlineAgent(agent.init, agent.step, act)), real.judge(agent)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        choose_key, test_key = jax.random.split(key)
        policies, runs = np.asarray(state.extra["policies"]), len(state.extra["worth"])

        def played(own: np.ndarray, key: Key) -> np.ndarray:
            return polynomial(state.replace(params={"polynomial": jnp.asarray(own)}), resident, key).outcomes["return"]

        tried = np.stack([played(policies[:, i], choose_key) for i in range(distil.finalists)])  # [F, S, E]
        best = tried.mean(2).argmax(0)
        chosen = policies[np.arange(runs), best]
        trained = state.params["actor_critic"]["params"]
        size = sum(x[0].size for name, x in _flat(trained).items() if name.startswith(("policy", "log_std")))
        found = {
            "return": played(chosen, test_key), "network_return": network(state, resident, test_key).outcomes["return"],
            "terms": (chosen != 0.0).sum((1, 2)).astype(np.float64)[:, None],
            "parameters": np.full((runs, 1), float(size)),
            "samples": np.full((runs, 1), float(tried[:, 0].size * config.horizon * (distil.finalists > 1))),
        }
        return Evaluation(outcomes=found)

    return Program(init, step, evaluate, jnp.asarray(real.starts))


def _flat(params: PyTree) -> dict[str, jax.Array]:
    paths = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}

"""A trained network policy written as a few polynomial terms (Zolman et al. 2024, arXiv 2403.09110).

The network acts in the surrogate on noisy observations; its own actions there are what polynomials are fitted to, one
ensemble for every threshold and ridge. The closest few play in the real environment, and the best of them is taken.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.online import OnlineAgent, collect, start
from rl_jax.control.dyna import Real, agent_for_its_policy, reward_of, start_fitted
from rl_jax.control.dynamics import make_dynamics
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
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
    config: ConfigDict, world: World, observations: jax.Array, actions: jax.Array, key: Key
) -> tuple[jax.Array, jax.Array]:
    """An ensemble polynomial for each threshold and ridge: [N, O] and [N, A] -> (coefficients [G, P, A], the mean
    squared error of the clipped output [G])."""
    distil = config.distil
    columns = features(policy_terms(config, world), observations)
    settings = np.array(list(itertools.product(distil.thresholds, distil.ridges)))
    valid = jnp.ones(len(columns), bool)
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
    return found, jnp.mean(jnp.square(clipped - actions), (1, 2))


def distillation_program(config: ConfigDict, world: World, real: Real) -> Program:
    """One step distils the policy of `config.init_from`.

    Outcomes: "return" [S, E] of the polynomial and "network_return" [S, E] of the network's mode in the real
    environment; [S, 1]: "terms" (its coefficients that are not zero), "parameters" (of the network's policy), "mse",
    and "samples", the real steps that choosing took.
    """
    distil, dynamics = config.distil, make_dynamics(config.model, world)
    num_terms, num_actions = len(policy_terms(config, world)), len(world.actions)
    agent = agent_for_its_policy(config, world, real)
    low, high = -distil.clip, distil.clip

    def init(key: Key, resident: PyTree) -> TrainState:
        agent_key, model_key = jax.random.split(key)
        state = agent.init(agent_key)
        policies = jnp.zeros((distil.finalists, num_terms, num_actions)), jnp.full(distil.finalists, jnp.inf)
        return TrainState.create(state.params, {}, extra={
            "fitted": start_fitted(config, world, dynamics, model_key), "policies": policies[0], "mse": policies[1],
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

        copies = start(model, distil.copies, start_key)
        noise = distil.noise * jax.random.normal(
            noise_key, (distil.steps, distil.copies, len(world.variables))
        )
        _, steps, _ = collect(model, copies, lambda seen, noise: mode(seen + noise), noise, collect_key)
        seen = (steps.observations + noise).reshape(-1, len(world.variables))
        policies, errors = fit_policies(config, world, seen, mode(seen), fit_key)
        closest = jnp.argsort(errors)[: distil.finalists]
        extra = {**state.extra, "policies": policies[closest], "mse": errors[closest]}
        return state.replace(extra=extra), {"distil/mse": errors[closest[0]], "distil/worst": jnp.max(errors)}

    def act(params: PyTree, observations: jax.Array, key: Key, temperature: jax.Array | float) -> jax.Array:
        return polynomial_act(config, world, params["polynomial"], observations)

    polynomial, network = real.judge(OnlineAgent(agent.init, agent.step, act)), real.judge(agent)

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        choose_key, test_key = jax.random.split(key)
        policies, runs = np.asarray(state.extra["policies"]), len(state.extra["mse"])

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
            "mse": np.asarray(state.extra["mse"], np.float64)[np.arange(runs), best][:, None],
            "samples": np.full((runs, 1), float(tried[:, 0].size * config.horizon)),
        }
        return Evaluation(outcomes=found)

    return Program(init, step, evaluate, jnp.asarray(real.starts))


def _flat(params: PyTree) -> dict[str, jax.Array]:
    paths = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in paths}

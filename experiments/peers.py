"""Other libraries' updates for the benchmark: JAX-CORL, CORL's ReBRAC (JAX too), PureJaxRL's PPO, diffusers' U-Net.

The first three are loaded from a checkout and run as their own training loops run them: JAX-CORL's `update_n_times`
unrolls 8 updates in one jitted call, its decision transformer does one a call and cuts its sequences in a call of their
own, and CORL's ReBRAC loops over an epoch in one call. PureJaxRL's PPO is a whole training, environments and all, in
one call. Simulators and loggers that the files import are stubbed.

A rate is compared at equal sizes: `ours` brings our configuration to the peer's widths, depths, batch and numbers of
sampled actions, and our core fuses as many updates a call as the peer does. Where our agent cannot take the peer's size
the peer takes ours (AWAC's policy, deeper than its critic; LayerNorm in IQL's V; the length of ReBRAC's epoch). What
neither can change stays: LayerNorm in the critics of JAX-CORL's AWAC and TD3+BC.

PureJaxRL's PPO runs with the settings of its own file, and ours are set to them. What it does otherwise stays: it takes
a time-out for a terminal and its values along with its actions, and hands out the statistics of every step of a call.

diffusers' U-Net, in PyTorch, runs in another Python as a process that is told what to do next (diffusers_peer.py). Its
shape, sampler, levels, loss, chunks and optimiser are set to ours.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.data.episodes import Episodes
from rl_jax.generative.unet import UNetConfig

Variant = Callable[[], int]  # does some updates, or images, to their end and returns how many
CALLS = 6  # between two looks at the clock
STUBBED = ("d4rl", "gym", "pyrallis", "wandb", "brax", "brax.envs", "brax.envs.wrappers.training", "navix")


class Peer(NamedTuple):
    """Another library's update of one run.

    Attributes:
      run: does some updates to their end and returns how many.
      fused: updates in one compiled call.
      ours: fields of our configuration that bring it to the peer's sizes.
    """

    run: Callable[[], int]
    fused: int
    ours: Mapping[str, Any]


class _Algorithm(NamedTuple):
    """One of JAX-CORL's files: its class, our field of each of its sizes, and what of its own is set otherwise."""

    file: str
    name: str
    sizes: Mapping[str, str] = {"agent.hidden_dims": "hidden_dims"}
    theirs: Mapping[str, Any] = {}


_DEEP = (256, 256, 256)
_JAX_CORL = {
    "awac": _Algorithm(
        "awac", "AWAC", {"agent.hidden_dims": "critic_hidden_dims"},
        {"actor_hidden_dims": _DEEP, "critic_hidden_dims": _DEEP},
    ),
    "cql": _Algorithm("cql", "CQL", {"agent.hidden_dims": "hidden_dims", "agent.num_samples": "cql_n_actions"}),
    "iql": _Algorithm("iql", "IQL", theirs={"layer_norm": False}),
    "td3_bc": _Algorithm("td3bc", "TD3BC"),
    "xql": _Algorithm(
        "xql", "XQL", {"agent.hidden_dims": "hidden_dims", "agent.random_actions": "sample_random_times"}
    ),
}


def jax_corl(name: str, episodes: Episodes, checkout: Path) -> Peer | None:
    """JAX-CORL's update of an agent with its own defaults; None for an agent that it does not have.

    Raises:
      ValueError: the file is not in `checkout`.
    """
    if name == "dt":
        return _jax_corl_dt(episodes, checkout)
    if name not in _JAX_CORL:
        return None
    algorithm = _JAX_CORL[name]
    module = _load(checkout / "algos" / f"{algorithm.file}.py")
    transitions = episodes.to_transitions()
    config = getattr(module, f"{algorithm.name}Config")()
    for field, value in algorithm.theirs.items():
        setattr(config, field, value)
    if name == "cql":
        config.action_dim = transitions.actions.shape[1]
        config.target_entropy = -float(config.action_dim)
    # Networks read the module's own.
    module.config = config
    dones = 1 - transitions.masks
    fields = {"dones": dones, "dones_float": dones} | vars(transitions)
    data = module.Transition(**{field: jnp.asarray(fields[field]) for field in module.Transition._fields})
    create = getattr(module, f"create_{algorithm.file}_train_state")
    state = create(jax.random.PRNGKey(0), data.observations[0], data.actions[0], config)
    update = jax.jit(getattr(module, algorithm.name)().update_n_times, static_argnums=(3,))
    call = _stateful(lambda state, key: update(state, data, key, config)[0], state)
    sizes = {"batch_size": "batch_size", **algorithm.sizes}
    ours = {field: getattr(config, theirs) for field, theirs in sizes.items()}
    return Peer(lambda: call() * config.n_jitted_updates, config.n_jitted_updates, ours)


def _jax_corl_dt(episodes: Episodes, checkout: Path) -> Peer:
    """The decision transformer: episodes padded to the longest, one jitted call for a batch and one for its update."""
    module = _load(checkout / "algos" / "dt.py")
    config, lengths = module.DTConfig(), episodes.lengths
    rows = [np.arange(start, start + length) for start, length in zip(episodes.starts, lengths, strict=True)]

    def padded(column: np.ndarray) -> jax.Array:
        out = np.zeros((len(rows), lengths.max(), *column.shape[1:]), column.dtype)
        for episode, steps in enumerate(rows):
            out[episode, : len(steps)] = column[steps]
        return jnp.asarray(out)

    count = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    returns = (episodes.returns_to_go() / config.rtg_scale).astype(np.float32)
    columns = (count, episodes.observations, episodes.actions, returns[:, None], np.ones(len(count), np.float32))
    data, lengths = module.Trajectory(*map(padded, columns)), jnp.asarray(lengths)
    sizes = episodes.observations.shape[1], episodes.actions.shape[1]
    update = jax.jit(module.DT().update)

    def step(state: Any, key: jax.Array) -> Any:
        data_key, update_key = jax.random.split(key)
        batch = module.sample_traj_batch(data_key, data, config.batch_size, config.context_len, len(rows), lengths)
        return update(state, batch, update_key)[0]

    ours = {
        "agent.embedding_dim": config.embed_dim, "agent.num_layers": config.n_blocks, "agent.num_heads": config.n_heads,
        "dataset.context_length": config.context_len, "batch_size": config.batch_size,
    }
    return Peer(_stateful(step, module.create_dt_train_state(jax.random.PRNGKey(0), *sizes, config)), 1, ours)


def corl_rebrac(episodes: Episodes, checkout: Path, fused: int) -> Peer:
    """CORL's ReBRAC with its own defaults: its loop over an epoch of `fused` updates, jitted as a whole."""
    module = _load(checkout / "algorithms" / "offline" / "rebrac.py")
    config, transitions = module.Config(), episodes.to_transitions(("next_actions",))
    data = {
        "states": transitions.observations, "actions": transitions.actions, "rewards": transitions.rewards,
        "next_states": transitions.next_observations, "next_actions": transitions.next_actions,
        "dones": 1 - transitions.masks,
    }
    data = {name: jnp.asarray(column) for name, column in data.items()}
    example = data["states"][:1], data["actions"][:1]
    actor_network = module.DetActor(
        example[1].shape[1], config.hidden_dim, config.actor_ln, config.actor_n_hiddens
    )
    critic_network = module.EnsembleCritic(config.hidden_dim, 2, config.critic_ln, config.critic_n_hiddens)
    states = []
    for kind, network, inputs, rate in [
        (module.ActorTrainState, actor_network, example[:1], config.actor_learning_rate),
        (module.CriticTrainState, critic_network, example, config.critic_learning_rate),
    ]:
        params = network.init(jax.random.PRNGKey(0), *inputs)
        targets = jax.tree.map(jnp.copy, params)
        tx = module.optax.adam(learning_rate=rate)
        states.append(kind.create(apply_fn=network.apply, params=params, target_params=targets, tx=tx))
    both = {
        "gamma": config.gamma, "actor_bc_coef": config.actor_bc_coef, "critic_bc_coef": config.critic_bc_coef,
        "tau": config.tau, "policy_noise": config.policy_noise, "noise_clip": config.noise_clip,
    }
    full = functools.partial(module.update_td3, **both, normalize_q=config.normalize_q)
    critic_alone = functools.partial(module.update_td3_no_targets, **both)
    names = ("critic_loss", "q_min", "actor_loss", "bc_mse_policy", "bc_mse_random", "action_mse")

    @jax.jit
    def epoch(state: Any, key: jax.Array) -> Any:
        def step(i: jax.Array, carry: Any) -> Any:
            key, actor, critic, metrics = carry
            key, batch_key = jax.random.split(key)
            rows = jax.random.randint(batch_key, (config.batch_size,), 0, len(data["states"]))
            batch = {name: column[rows] for name, column in data.items()}
            arguments = {"key": key, "actor": actor, "critic": critic, "batch": batch, "metrics": metrics}
            due = i % config.policy_freq == 0
            return jax.lax.cond(due, lambda: full(**arguments), lambda: critic_alone(**arguments))

        carry = (key, *state, module.Metrics.create(names))
        return jax.lax.fori_loop(0, fused, step, carry)[1:3]

    call = _stateful(epoch, tuple(states))
    ours = {"agent.hidden_dims": (config.hidden_dim,) * config.critic_n_hiddens, "batch_size": config.batch_size}
    return Peer(lambda: call() * fused, fused, ours)


def purejaxrl_ppo(checkout: Path, num_steps: int) -> Peer:
    """PureJaxRL's PPO on gymnax' CartPole-v1 with its own settings, but for its printing and its number of steps.

    Args:
      num_steps: environment steps of one call, which is a training from its start; rounded down to whole roll-outs.
    """
    folder = checkout / "purejaxrl"
    sys.modules["wrappers"] = _load(folder / "wrappers.py")
    try:
        module = _load(folder / "ppo.py")
    finally:
        del sys.modules["wrappers"]
    config = {
        "LR": 2.5e-4, "NUM_ENVS": 4, "NUM_STEPS": 128, "TOTAL_TIMESTEPS": num_steps, "UPDATE_EPOCHS": 4,
        "NUM_MINIBATCHES": 4, "GAMMA": 0.99, "GAE_LAMBDA": 0.95, "CLIP_EPS": 0.2, "ENT_COEF": 0.01, "VF_COEF": 0.5,
        "MAX_GRAD_NORM": 0.5, "ACTIVATION": "tanh", "ENV_NAME": "CartPole-v1", "ANNEAL_LR": True, "DEBUG": False,
    }
    train = jax.jit(module.make_train(config))
    rollouts, carry = config["NUM_UPDATES"], [jax.random.PRNGKey(0)]

    def run() -> int:
        carry[0], key = jax.random.split(carry[0])
        jax.block_until_ready(train(key))
        return rollouts * config["NUM_ENVS"] * config["NUM_STEPS"]

    # Theirs halves the squared error before the coefficient.
    ours = {
        "hidden_dims": (64, 64), "activation": config["ACTIVATION"], "num_envs": config["NUM_ENVS"],
        "num_steps": config["NUM_STEPS"], "num_epochs": config["UPDATE_EPOCHS"], "batch_size": config["MINIBATCH_SIZE"],
        "learning_rate": config["LR"], "decay_steps": rollouts, "discount": config["GAMMA"],
        "gae_lambda": config["GAE_LAMBDA"], "clip": config["CLIP_EPS"], "value_clip": config["CLIP_EPS"],
        "value_coefficient": config["VF_COEF"] / 2, "entropy_coefficient": config["ENT_COEF"],
        "max_grad_norm": config["MAX_GRAD_NORM"],
    }
    return Peer(run, rollouts, ours)


class DiffusersSettings(NamedTuple):
    """What diffusers' process is told.

    Attributes:
      unet: of a U-Net, whose dtype the peer's has too.
      device: "cpu" or "cuda".
      batch_size: images that are sampled, and trained on, at once.
      tokens: L of the context.
      timesteps, levels, stds: of the sampler, one a call.
      chunk_size: steps of images whose gradient is computed at once; it divides batch_size times calls.
      learning_rate, clip, max_grad_norm: of the update.
    """

    unet: UNetConfig
    device: str
    batch_size: int
    tokens: int
    timesteps: list[int]
    levels: list[float]
    stds: list[float]
    chunk_size: int
    learning_rate: float
    clip: float
    max_grad_norm: float


@contextlib.contextmanager
def diffusers_unet(python: Path, settings: DiffusersSettings) -> Iterator[tuple[dict[str, Callable[[], int]], int]]:
    """(What samples and what trains a batch and returns its number of images, by "sample" and "train"; the U-Net's
    number of parameters.)

    Raises:
      ValueError: `python` does not run, or has no torch or diffusers.
    """
    fields = {name: x for name, x in dataclasses.asdict(settings.unet).items() if name not in ("dtype", "remat")}
    told = settings._asdict() | {"unet": fields, "dtype": jnp.dtype(settings.unet.dtype).name}
    command = [python, Path(__file__).with_name("diffusers_peer.py"), json.dumps(told)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise ValueError(f"--diffusers_python={python} does not run: {error.strerror}") from None

    def answer() -> str:
        line = process.stdout.readline()
        if not line:
            raise ValueError(f"--diffusers_python={python} ended ({process.wait()}); its own message stands above")
        return line

    def ask(what: str) -> int:
        process.stdin.write(f"{what}\n")
        process.stdin.flush()
        return int(answer())

    with process:
        parameters = json.loads(answer())["parameters"]
        yield {what: functools.partial(ask, what) for what in ("sample", "train")}, parameters
        process.stdin.close()


def _stateful(step: Callable[[Any, jax.Array], Any], state: Any) -> Callable[[], int]:
    """A function that does CALLS steps, each with a key of its own, waits for them and returns CALLS."""
    carry = [state, jax.random.PRNGKey(1)]

    def run() -> int:
        for _ in range(CALLS):
            carry[1], key = jax.random.split(carry[1])
            carry[0] = step(carry[0], key)
        jax.block_until_ready(carry[0])
        return CALLS

    return run


def _load(path: Path) -> ModuleType:
    """A file as a module, without its simulators and loggers, the command line and its changes of the environment."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: take another version of the library")
    with _sandbox():
        spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        # Data classes look for their module while it is being made.
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _sandbox() -> Iterator[None]:
    arguments, environment = sys.argv, dict(os.environ)
    stubs = [name for name in STUBBED if name not in sys.modules]
    for name in stubs:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].Env = object
        sys.modules[name].wrap = lambda: lambda main: main
        sys.modules[name].EpisodeWrapper = sys.modules[name].AutoResetWrapper = object
    sys.argv = sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = arguments
        os.environ.clear()
        os.environ.update(environment)
        for name in stubs:
            del sys.modules[name]

"""SCOPE-RL: off-policy evaluation and selection, against exact values and against roll-outs.

    python -m experiments.scope_rl.train --config=configs/scope_rl.py:PRESET --workdir=DIR

Presets:
  quick             every estimator in a random MDP of 8 states, 3 actions and 20 steps with exact values and
                    visitations, 3 times 600 repetitions of 2,000 trajectories: a minute on a CPU.
  tabular/<models>  the same. Models: exact, biased (Q too large by 1), few (exact, 200 trajectories).
  control/<task>    6 candidate policies from 1,000 episodes (Hopper 500) of another one, with fitted Q-evaluation and
                    learnt ratios of visitations, 3 seeds. Tasks: cartpole, cartpole-random, acrobot, acrobot-random;
                    data of -random are of a policy further from the candidates; cartpole-learned, acrobot-learned,
                    whose candidates are runs of the next preset; hopper, whose policies are embedded.
  candidate/<task>-<learner>
                    a candidate learns offline. Tasks: cartpole, acrobot. Learners: bc, bc_best (the best 30% of the
                    data), cql, cql_weak, cql_strong (conservatism 1, 0.1 and 5), cql_sharp (near its mode).
  paper/<task>      control at the authors' sizes: 10,000 episodes, 10 seeds.
  logged            models of runs' policies on a user's data, for experiments.scope_rl.evaluate.
  tiny, tiny-control, tiny-candidate, tiny-hopper   seconds: what the tests run.
"""

from ml_collections import ConfigDict

from rl_jax.agents import dice, discrete_bc, discrete_cql, fqe
from rl_jax.core.config import core_config, from_preset

MODELS = {"exact": {}, "biased": {"q_error": 1.0}, "few": {"trajectories": 200}}

# Directions of softmax policies with linear scores (rl_jax/control/off_policy_problems.py): a controller of some
# quality and decision, on position, velocity, angle and its speed of CartPole, on the speeds of Acrobot's links.
CONTROL = {
    "cartpole": {
        "candidates": ((0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0), (0.0, 0.1, 1.0, 0.5), (0.0, 0.2, 2.0, 1.0),
                       (0.0, 0.0, 0.0, 0.5), (0.0, -0.2, 1.0, 0.5)),
        "behaviour": (0.0, 0.05, 1.0, 0.4),
    },
    "acrobot": {
        "candidates": ((0.0, 0.0, 0.0, 0.0, 0.0, 0.2), (0.0, 0.0, 0.0, 0.0, 0.0, 0.6), (0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
                       (0.0, 0.0, 0.0, 0.0, 0.0, 1.5), (0.0, 0.0, 0.0, 0.0, 0.3, 0.5), (0.0, 0.0, 0.0, 0.0, 0.5, 0.0)),
        "behaviour": (0.0, 0.0, 0.0, 0.0, 0.0, 0.8),
    },
}
RANDOM = {"cartpole": (0.0, 0.0, 0.5, 0.1), "acrobot": (0.0, 0.0, 0.0, 0.0, 0.1, 0.4)}
LEARNERS = {
    "bc": {}, "bc_best": {"top_fraction": 0.3}, "cql_weak": {"agent.conservatism": 0.1}, "cql": {},
    "cql_strong": {"agent.conservatism": 5.0}, "cql_sharp": {"agent.temperature": 0.2},
}
CONTROL |= {f"{task}-random": CONTROL[task] | {"behaviour": behaviour} for task, behaviour in RANDOM.items()}
CONTROL |= {
    f"{task}-learned": {"candidates": (), "behaviour": behaviour, "learned": dict.fromkeys(LEARNERS, "")}
    for task, behaviour in RANDOM.items()
}
# Snapshots of one training, whose modes are evaluated by kernels; one with noise logs, as the authors' SAC does.
CONTROL["hopper"] = {
    "candidates": tuple((f"sac_hopper_{steps}k", 0.0) for steps in ("010", "025", "040", "055", "080", "090")),
    "behaviour": ("sac_hopper_070k", 1.0), "horizon": 100, "trajectories": 500,
}


def get_config(preset: str = "quick") -> ConfigDict:
    """The configuration of a preset; an unknown one raises ValueError with the near names."""
    presets = {"quick": lambda: tabular("exact"), "tiny": lambda: tiny(tabular("exact")), "logged": user_data}
    presets |= {f"tabular/{models}": lambda models=models: tabular(models) for models in MODELS}
    for task in CONTROL:
        presets[f"control/{task}"] = lambda task=task: control(task)
        presets[f"paper/{task}"] = lambda task=task: paper(control(task))
    for task in RANDOM:
        presets |= {
            f"candidate/{task}-{name}": lambda task=task, name=name: candidate(task, name) for name in LEARNERS
        }
    presets["tiny-control"] = lambda: tiny_control(control("cartpole"))
    presets["tiny-hopper"] = lambda: tiny_control(control("hopper"))
    presets["tiny-candidate"] = lambda: tiny_candidate(candidate("cartpole", "cql"))
    return from_preset("scope_rl", presets, preset)


def base(task: str) -> ConfigDict:
    config = core_config()
    config.task = task  # "tabular", or "control"
    config.num_seeds = 3
    config.discount = 0.95
    config.tensorboard = False
    return config


def tabular(models: str) -> ConfigDict:
    config = base("tabular")
    # Both policies are random ones, mixed with the uniform policy by this share.
    config.mdp = {"states": 8, "actions": 3, "horizon": 20, "seed": 0, "noise": 0.0, "uniform": 0.7}
    config.trajectories = 2000
    config.q_error = 0.0  # added to the exact Q
    config.batch_size = 10  # repetitions a step
    config.num_steps = 60
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 0})
    config.checkpoint.every = 0
    config.update(MODELS[models])
    return config


def with_models(config: ConfigDict) -> ConfigDict:
    """The fields of what learns."""
    config.folds = 2  # of the episodes: models judge those that they did not learn from; 1: all learn from all
    config.draws = 4  # of a policy in each state, ahead of training, where actions are vectors
    config.kernel = {"name": "gaussian", "bandwidth": 0.5}  # of policies without a density
    config.fqe = fqe.default_config()
    config.fqe.update({"hidden_dims": (64, 64), "learning_rate": 1e-3, "target_every": 20})
    config.dice = dice.default_config()
    config.dice.update({"method": "kernel_mwl", "hidden_dims": (64, 64)})
    for learner in (config.fqe, config.dice):
        learner.discount = config.get_oneway_ref("discount")
    config.batch_size = 128
    config.num_steps = 2000
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": 0})
    config.checkpoint.every = 0
    return config


def problem(config: ConfigDict, task: str) -> ConfigDict:
    config.environment = task.partition("-")[0]
    config.trajectories = 1000
    config.horizon = 150  # steps of the longest episode, after which nothing is earned
    config.discount = 0.98
    config.update(CONTROL[task])
    return config


def control(task: str) -> ConfigDict:
    config = problem(base("control"), task)
    config.learned = config.get("learned", {})  # more candidates: folders of runs by name
    config.roll_outs = 2000 if task != "hopper" else 320  # by which the truth is known
    config.truth_seed = 1
    return with_models(config)


def candidate(task: str, learner: str) -> ConfigDict:
    config = problem(base("candidate"), f"{task}-random")
    config.candidates = ()
    config.agent = (discrete_bc if learner.startswith("bc") else discrete_cql).default_config()
    config.agent.hidden_dims = (64, 64)
    if "discount" in config.agent:
        config.agent.discount = config.get_oneway_ref("discount")
    config.data_seed = 1_000_000  # no seed of those that evaluate
    config.top_fraction = 1.0  # of the steps, in the best episodes
    config.eval_episodes = 200
    config.num_seeds, config.batch_size, config.num_steps = 1, 128, 3000
    config.loop.update({"chunk": 100, "log_every": 500, "eval_every": 1000})
    config.checkpoint.every = 0
    config.update_from_flattened_dict(LEARNERS[learner])
    return config


def paper(config: ConfigDict) -> ConfigDict:
    """The authors' numbers of episodes, seeds and hidden units, and FQE's and the weight learners' rate."""
    config.num_seeds, config.trajectories, config.num_steps = 10, 10_000, 10_000
    config.horizon, config.roll_outs = 200, max(config.roll_outs, 1000)
    for learner in (config.fqe, config.dice):
        learner.hidden_dims, learner.learning_rate = (100, 100), 1e-4
    config.fqe.target_every = 100
    return config


def user_data() -> ConfigDict:
    config = base("logged")
    config.data = ""  # an npz file or the folder of a data set
    config.runs = ()  # folders
    config.modes = False  # whether policies do their modes
    config.discount = 0.99
    config.horizon = 0  # episodes that a time-out cuts would have gone on
    config = with_models(config)
    config.num_seeds = 1
    return config


def tiny(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size, config.trajectories = 2, 4, 8, 50
    config.mdp.horizon = 5
    return config


def tiny_control(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size, config.trajectories = 2, 20, 16, 20
    config.horizon, config.roll_outs = 20, 50
    config.fqe.hidden_dims = config.dice.hidden_dims = (8,)
    config.loop.update({"chunk": 10, "log_every": 10})
    return config


def tiny_candidate(config: ConfigDict) -> ConfigDict:
    config.num_seeds, config.num_steps, config.batch_size, config.trajectories = 2, 20, 16, 20
    config.horizon, config.eval_episodes, config.agent.hidden_dims = 20, 5, (8,)
    config.loop.update({"chunk": 10, "log_every": 10, "eval_every": 10})
    return config

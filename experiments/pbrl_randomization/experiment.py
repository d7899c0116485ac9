"""PR-LSVI or PbTS in a known MDP: a step is a round of two policies and perhaps one question."""

import math

from ml_collections import ConfigDict

from rl_jax.control.dueling import QUERIES, REGRET, agent_of, dueling_program, problems_of
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment
from rl_jax.losses.preference_posterior import BLOCK

MOST_ROUNDS = 100_000


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/pbrl_randomization.py says.

    Raises:
      ValueError: an unknown name, thresholds the wrong way round, more rounds than room for answers or than float32
        can count, or an epsilon that no pair is above.
    """
    rounds, agent = config.rounds, config.agent
    agent_of(config)
    if rounds.query not in QUERIES:
        raise ValueError(unknown("config.rounds.query", rounds.query, QUERIES))
    if config.num_steps > rounds.capacity:
        raise ValueError(
            f"config.rounds.capacity={rounds.capacity} answers are fewer than config.num_steps={config.num_steps}: "
            f"raise it, to a multiple of {BLOCK}"
        )
    if config.num_steps > MOST_ROUNDS:
        raise ValueError(f"config.num_steps={config.num_steps}: sums in float32 hold {MOST_ROUNDS} rounds at most")
    if agent.name == "pr_lsvi" and agent.alpha_high < agent.alpha_low:
        raise ValueError(
            f"config.agent.alpha_high={agent.alpha_high} is below config.agent.alpha_low={agent.alpha_low}: the "
            "thresholds rise"
        )
    problems, horizon = problems_of(config)
    # |x| is 2 H max |phi| at most, and at the start it is over sqrt(ridge).
    sigma = agent.sigma_reward if agent.name == "pr_lsvi" else 1.0
    largest = float((problems.features**2).sum(-1).max()) ** 0.5
    most = 4.0 * sigma * horizon * largest / math.sqrt(math.pi * agent.ridge)
    if rounds.query == "active" and rounds.epsilon >= most:
        raise ValueError(
            f"config.rounds.epsilon={rounds.epsilon}: the rule is at most {most:.3g} before the first answer, so that "
            "nothing would ever be asked: lower it"
        )
    inputs = {"mdp": config.mdp.kind, "best": float(problems.best.mean())}
    return Experiment(lambda config: dueling_program(config, problems, horizon), inputs, REGRET)

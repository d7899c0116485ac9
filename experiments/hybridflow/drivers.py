"""PPO, ReMax, GRPO and Safe-RLHF: what one iteration of each does, as calls of roles (models.py, advantages.py).

Nothing here says where a role lies: the same lines drive roles on eight devices, on two groups of four or on one, and,
traced into a compiled step, one fused program. `learn` gives the roles after their updates and what was measured.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable

from experiments.hybridflow.advantages import against_greedy, generalized, in_groups, lagrangian
from experiments.hybridflow.models import learn


def ppo(roles, numbers, prompts, key):
    """Schulman et al. 2017, arXiv 1707.06347, with a penalty on the divergence from the reference in the reward."""
    rows = roles.actor.generate(prompts, key)
    rows = roles.actor.log_probs(rows)
    rows = roles.reference.log_probs(rows)
    rows = roles.critic.values(rows)
    rows = roles.reward.scores(rows)
    rows = generalized(rows, numbers)
    return learn(roles, rows, actor=(rows,), critic=(rows,))


def remax(roles, numbers, prompts, key):
    """Li et al. 2024, arXiv 2310.10505: no critic, the most likely answer's reward is the baseline."""
    rows = roles.actor.generate(prompts, key)
    greedy = roles.reward.scores(roles.actor.greedy(prompts, key))
    rows = roles.actor.log_probs(rows)
    rows = roles.reference.log_probs(rows)
    rows = roles.reward.scores(rows)
    rows = against_greedy(rows, greedy, numbers)
    return learn(roles, rows, actor=(rows,))


def grpo(roles, numbers, prompts, key):
    """Shao et al. 2024, arXiv 2402.03300: no critic, answers to one prompt are compared with each other."""
    rows = roles.actor.generate(prompts, key)
    rows = roles.actor.log_probs(rows)
    rows = roles.reference.log_probs(rows)
    rows = roles.reward.scores(rows)
    rows = in_groups(rows, prompts)
    return learn(roles, rows, actor=(rows,))


def safe_rlhf(roles, numbers, prompts, key):
    """Dai et al. 2023, arXiv 2310.12773: PPO under a limit of cost, by a Lagrange multiplier, with a pre-training loss.
    """
    rows = roles.actor.generate(prompts, key)
    rows = roles.reference.log_probs(roles.actor.log_probs(rows))
    costs = generalized(roles.cost_critic.values(roles.cost.scores(rows)), numbers)
    rows = generalized(roles.critic.values(roles.reward.scores(rows)), numbers)
    rows = lagrangian(rows, costs, roles.multiplier.read())
    learners = {"critic": (rows,), "cost_critic": (costs,), "multiplier": (costs,)}
    return learn(roles, rows, actor=(rows, prompts.examples), **learners)


DRIVERS = {"ppo": ppo, "remax": remax, "grpo": grpo, "safe_rlhf": safe_rlhf}


def lines_of_code(function: Callable) -> int:
    """The lines of a function's body, without docstring, comments and empty ones."""
    source = textwrap.dedent(inspect.getsource(function))
    body = ast.parse(source).body[0].body
    if ast.get_docstring(ast.parse(source).body[0]) is not None:
        body = body[1:]
    lines = source.splitlines()[body[0].lineno - 1 : body[-1].end_lineno]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith("#"))

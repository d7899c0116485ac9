"""Writes off_policy.npz: what SCOPE-RL's and Open Bandit Pipeline's estimators make of random numbers.

Needs scope-rl, obp, scikit-learn, pandas and nothing of this project: python tests/golden/make_off_policy.py
(PROVENANCE.md). Their modules of estimators are imported by themselves, with empty stand-ins for d3rlpy, gym and torch,
which they name in type hints.
"""

import importlib
import importlib.util
import inspect
import sys
import types
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

COUNT, STEPS, ACTIONS, DISCOUNT = 40, 6, 3, 0.9
NAMES = {
    "dm": "DirectMethod", "tis": "TrajectoryWiseImportanceSampling", "pdis": "PerDecisionImportanceSampling",
    "dr": "DoublyRobust", "sntis": "SelfNormalizedTIS", "snpdis": "SelfNormalizedPDIS", "sndr": "SelfNormalizedDR",
}
MARGINAL = {
    "sam_is": "StateActionMarginalIS", "sam_snis": "StateActionMarginalSNIS", "sam_dr": "StateActionMarginalDR",
    "sm_is": "StateMarginalIS", "drl": "DoubleReinforcementLearning",
}
BANDITS = {
    "dm": "DirectMethod", "pdis": "InverseProbabilityWeighting", "dr": "DoublyRobust",
    "snpdis": "SelfNormalizedInverseProbabilityWeighting",
}
DISTRIBUTIONS = {"cd_tis": "CumulativeDistributionTIS", "cd_sntis": "CumulativeDistributionSNTIS"}


def alone(library: str, module: str):
    """A module of a library without what its packages import."""
    for name in ("d3rlpy", "d3rlpy.preprocessing", "gym", "gym.spaces"):
        sys.modules.setdefault(name, MagicMock())
    torch = sys.modules.setdefault("torch", types.ModuleType("torch"))
    torch.Tensor = type("Tensor", (), {})
    root = importlib.util.find_spec(library).submodule_search_locations[0]
    for name in (f"{library}.ope", f"{library}.ope.discrete"):
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].__path__ = [str(Path(root, *name.split(".")[1:]))]
    return importlib.import_module(module)


def main() -> None:
    rng = np.random.default_rng(40)
    shape = (COUNT, STEPS)
    behaviour, policy = (rng.dirichlet(np.full(ACTIONS, 2.0), shape) for _ in range(2))
    actions = rng.integers(0, ACTIONS, shape)
    given = {
        "rewards": rng.normal(size=shape), "actions": actions, "behaviour": behaviour, "policy": policy,
        "q": rng.normal(size=(*shape, ACTIONS)), "state_weights": rng.gamma(2.0, 0.5, shape),
        "state_action_weights": rng.gamma(2.0, 0.5, shape),
    }
    chosen = np.take_along_axis(behaviour, actions[..., None], -1)[..., 0]
    start = (policy * given["q"]).sum(-1)[:, 0]
    flat = dict(
        step_per_trajectory=STEPS, action=actions.ravel(), reward=given["rewards"].ravel(), pscore=chosen.ravel(),
        evaluation_policy_action_dist=policy.reshape(-1, ACTIONS),
        state_action_value_prediction=given["q"].reshape(-1, ACTIONS), gamma=DISCOUNT,
    )
    more = dict(
        initial_state_value_prediction=start, state_marginal_importance_weight=given["state_weights"].ravel(),
        state_action_marginal_importance_weight=given["state_action_weights"].ravel(),
    )
    found = {}
    basic = alone("scope_rl", "scope_rl.ope.discrete.basic_estimators")
    marginal = alone("scope_rl", "scope_rl.ope.discrete.marginal_estimators")
    cumulative = alone("scope_rl", "scope_rl.ope.discrete.cumulative_distribution_estimators")
    for name, of in NAMES.items():
        found[f"scope/{name}"] = getattr(basic, of)()._estimate_trajectory_value(**flat)
    for name, of in MARGINAL.items():
        for ratios in (0,) if name == "drl" else (0, 2):
            call = getattr(marginal, of)()._estimate_trajectory_value
            known = inspect.signature(call).parameters
            found[f"scope/{name}/{ratios}"] = call(
                **{key: x for key, x in {**flat, **more, "n_step_pdis": ratios}.items() if key in known}
            )
    # Its returns are discounted once too often, so these are of undiscounted ones.
    thresholds = np.linspace(-6.0, 6.0, 25)
    for name, of in DISTRIBUTIONS.items():
        found[f"scope/{name}"] = getattr(cumulative, of)().estimate_cumulative_distribution_function(
            **{key: x for key, x in flat.items() if key not in ("state_action_value_prediction", "gamma")},
            reward_scale=thresholds, gamma=1.0,
        )
    utils = alone("scope_rl", "scope_rl.utils")
    samples = rng.exponential(size=50)
    for name in ("hoeffding", "empirical_bernstein", "t_test"):
        low, high = list(getattr(utils, f"estimate_confidence_interval_by_{name}")(samples, alpha=0.1).values())[1:]
        found[f"scope/{name}"] = np.array([low, high])

    one = dict(
        reward=given["rewards"][:, 0], action=actions[:, 0], pscore=chosen[:, 0], position=np.zeros(COUNT, int),
        action_dist=policy[:, 0, :, None], estimated_rewards_by_reg_model=given["q"][:, 0, :, None],
    )
    bandits = alone("obp", "obp.ope.estimators")
    for name, of in BANDITS.items():
        found[f"obp/{name}"] = getattr(bandits, of)().estimate_policy_value(**one)
    np.savez_compressed(
        Path(__file__).with_name("off_policy.npz"), thresholds=thresholds, samples=samples, discount=DISCOUNT,
        **{f"given/{name}": x for name, x in given.items()}, **found,
    )


if __name__ == "__main__":
    main()

"""An agent with a memory on recorded episodes of the stitching gridworld."""

from ml_collections import ConfigDict

from rl_jax.control.histories import Judged, history_program
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.envs.stitching_grid import recorded, stitching_grid

SUCCESS = Metric("eval/success", "success")


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/obs_history.py says; policies are judged from start A."""
    data = config.data
    episodes = recorded(
        data.episodes, data.view, noise=data.noise, wrong_share=data.wrong_share, horizon=data.horizon, seed=data.seed
    )
    if data.top_fraction < 1.0:
        episodes = episodes.best_steps(data.top_fraction)
    judged = Judged(stitching_grid("A", data.view, data.horizon), success=1.0)
    inputs = {"data": data.kind, "episodes": episodes.num_episodes, "mean_return": float(episodes.returns.mean())}
    return Experiment(lambda config: history_program(config, episodes, judged), inputs, SUCCESS)

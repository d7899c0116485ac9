"""ICVF where all is known: state numbers of a small maze, random walks as the video, exact values of all goals."""

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.icvf import Drawn, icvf
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import evaluated
from rl_jax.core.mesh import shard_batch
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.data.video import Video
from rl_jax.networks.encoders import num_states
from rl_jax.tabular.maze import goal_values, maze_mdp

ERROR = Metric("eval/error", "relative error of V(s, g, g)", "lower")
ROWS = ("#######", "#S....#", "#.###.#", "#...#.#", "#.#...#", "#....G#", "#######")


def random_walks(transitions: np.ndarray, clips: int, steps: int, seed: int) -> Video:
    """Clips of uniform actions from uniform states, frames int32 [clips * steps]."""
    rng = np.random.default_rng(seed)
    states = [rng.integers(0, len(transitions), clips)]
    for _ in range(steps):
        states.append(transitions[states[-1], rng.integers(0, transitions.shape[1], clips)])
    walked = np.stack(states, 1).astype(np.int32)
    ends = np.repeat(np.arange(1, clips + 1) * steps - 1, steps).astype(np.int32)
    return Video(walked[:, :-1].reshape(-1), walked[:, 1:].reshape(-1), ends)


def tabular_experiment(config: ConfigDict) -> Experiment:
    """ICVF of one-hot states. Outcomes "error" [S, pairs]: |V - V*| / |V*| of V(s, g, g) of each two states.

    Raises:
      ValueError: the encoder counts other states than the maze has.
    """
    transitions = np.asarray(maze_mdp(ROWS)[0].transitions)
    count = len(transitions)
    if num_states(config.agent.encoder) != count:
        raise ValueError(f"config.agent.encoder={config.agent.encoder}: the maze has {count} states")
    video = random_walks(transitions, config.world.clips, config.world.clip_steps, config.world.seed)
    exact = goal_values(transitions, config.agent.discount)
    states, goals = np.nonzero(exact)

    def program(config: ConfigDict) -> Program:
        learner = icvf(config.agent)

        def draw(key: Key, resident: PyTree, count: int) -> Drawn:
            """A frame is the state itself here, so that whoever is in it again has reached it again."""
            found = learner.draw(key, resident, count)
            return found._replace(reached=(found.frames[:, 2:] == found.frames[:, :1]).astype(jnp.float32))

        def init(key: Key, resident: PyTree) -> TrainState:
            return learner.init(key, draw(key, resident, 1))

        def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
            del batch
            return learner.update(state, shard_batch(draw(key, resident, config.batch_size)))

        values = evaluated(lambda params: learner.value(params, jnp.stack([states, goals, goals], 1)))

        def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
            del resident, key
            truth = exact[states, goals]
            return Evaluation(outcomes={"error": np.abs(values(state.params) / truth - 1.0)})

        return Program(init, step, evaluate, video)

    return Experiment(program, {"video": "random walks"}, ERROR)

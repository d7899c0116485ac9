"""Navigation in VizDoom (Kempka et al. 2016, arXiv 1605.02097): a vest somewhere in a maze of rooms, looked for with
the player's eyes.

Importing this module registers doom-my_way_home-v0, which `EnvPool` knows by itself. An episode begins in one of the
rooms, pays 1 at the vest, which ends it, and is timed out after TIME_LIMIT decisions.
"""

import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from rl_jax.core.extras import require
from rl_jax.data.episodes import Episodes

gymnasium = require("gymnasium", "vizdoom")

EXTRA, ENV_ID, SCENARIO = "vizdoom", "doom-my_way_home-v0", "my_way_home"
MOVES = ("TURN_LEFT", "TURN_RIGHT", "MOVE_FORWARD")  # one at a time; what the scenario has besides is not pressed
PICTURE = (60, 80)  # grey
TICS = 8  # of the game, 35 a second, for a decision
TIME_LIMIT = 128


class Doom(gymnasium.Env):
    """The maze; observations [60 * 80] float32 in [0, 1], a picture's rows; actions [3], the largest of which is done.

    Raises:
      MissingExtraError: vizdoom is not installed.
    """

    metadata = {"render_modes": []}

    def __init__(self) -> None:
        vizdoom = require("vizdoom", EXTRA)
        self._game, self._folder = vizdoom.DoomGame(), tempfile.TemporaryDirectory()
        # By default it writes its settings where one stands.
        self._game.set_doom_config_path(f"{self._folder.name}/vizdoom.ini")
        self._game.load_config(f"{vizdoom.scenarios_path}/{SCENARIO}.cfg")
        self._game.set_available_buttons([getattr(vizdoom.Button, name) for name in MOVES])
        self._game.set_window_visible(False)
        self._game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        self._game.set_screen_format(vizdoom.ScreenFormat.GRAY8)
        self._game.set_episode_timeout(0)  # the limit is Gymnasium's affair
        self._game.set_living_reward(0.0)
        self._game.init()
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (PICTURE[0] * PICTURE[1],), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (len(MOVES),), np.float32)
        self._seen = np.zeros(self.observation_space.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self._game.set_seed(seed % 2**31)
        self._game.new_episode()
        return self._look(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = self._game.make_action([float(move == np.argmax(action)) for move in range(len(MOVES))], TICS)
        return self._look(), float(reward > 0.5), self._game.is_episode_finished(), False, {}

    def close(self) -> None:
        self._game.close()
        self._folder.cleanup()

    def _look(self) -> np.ndarray:
        """Every second pixel's mean with its neighbours; behind the last step the game shows nothing, and this the
        picture before."""
        state = self._game.get_state()
        if state is not None:
            grey = state.screen_buffer.reshape(PICTURE[0], 2, PICTURE[1], 2).mean((1, 3)) / 255.0
            self._seen = grey.reshape(-1).astype(np.float32)
        return self._seen


gymnasium.register(ENV_ID, entry_point=f"{__name__}:Doom", max_episode_steps=TIME_LIMIT)


def recorded_walks(num_episodes: int, seed: int) -> Episodes:
    """Episodes of ten kinds of players, in turn, who see nothing.

    A player does what it did before with a probability of its own, 0 to 0.9, and else it turns left, turns right or
    goes on, the last every other time. Some get to the vest now and then.

    Raises:
      MissingExtraError: vizdoom is not installed.
    """
    env, rng = gymnasium.make(ENV_ID, disable_env_checker=True), np.random.default_rng(seed)

    def steps() -> Iterator[tuple]:
        for episode in range(num_episodes):
            persistence, move = episode % 10 / 10, MOVES.index("MOVE_FORWARD")
            seen, _ = env.reset(seed=int(rng.integers(2**31)))
            for time in range(TIME_LIMIT):
                move = move if rng.random() < persistence else int(rng.choice(len(MOVES), p=(0.25, 0.25, 0.5)))
                action = np.eye(len(MOVES), dtype=np.float32)[move]
                following, reward, terminated, truncated, _ = env.step(action)
                yield seen, action, np.float32(reward), terminated, truncated, following, time == 0
                seen = following
                if terminated or truncated:
                    break

    try:
        *columns, first = map(np.stack, zip(*steps(), strict=True))
    finally:
        env.close()
    return Episodes(*columns, starts=np.flatnonzero(first))

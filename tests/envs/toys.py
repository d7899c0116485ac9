"""A toy environment whose episodes are known from the reset seed: `tests.envs.toys:Toy-v0`, SavableToy-v0."""

import os
import signal
import sys
import time

import gymnasium
import numpy as np

SHORT, LONG = 2, 20  # steps


def episode_length(seed: int) -> int:
    """Even seeds give short episodes, which terminate; odd seeds long ones, which the time limit truncates."""
    return SHORT if seed % 2 == 0 else LONG


class Toy(gymnasium.Env):
    """Reward 1 + action; the observation is (seed % 1000, step). `fault` happens in the second step of odd seeds."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-0.5, 0.5, (1,), np.float32)

    def __init__(self, fault: str = ""):
        self.fault = fault

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        if self.fault and self.steps == 2 and self.seed % 2 == 1:
            FAULTS[self.fault]()
        reward = np.nan if self.fault == "nan" and self.steps == 2 else 1.0 + float(action[0])
        return self._observation(), reward, self.steps == episode_length(self.seed) == SHORT, False, {}

    def _observation(self):
        return np.array([self.seed % 1000, self.steps], np.float64)


class SavableToy(Toy):
    """The toy with a state that can be saved; `forgetful` restores one step less than was done."""

    def __init__(self, fault: str = "", forgetful: bool = False):
        super().__init__(fault)
        self.forgetful = forgetful

    def save_state(self):
        return np.array([self.seed, self.steps], np.float64)

    def restore_state(self, state):
        self.seed, self.steps = int(state[0]), int(state[1]) - self.forgetful


def _raise():
    raise KeyError("toy fault")


FAULTS = {
    "raise": _raise,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": lambda: time.sleep(600),
    "print": lambda: (print("printed by the toy"), sys.stdout.flush()),
    "nan": lambda: None,
}

gymnasium.register("Toy-v0", entry_point="tests.envs.toys:Toy", max_episode_steps=LONG)
gymnasium.register("SavableToy-v0", entry_point="tests.envs.toys:SavableToy", max_episode_steps=LONG)

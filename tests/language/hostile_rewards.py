"""Rewards that do what a checker must not be able to do to a run; processes of test_rewards.py import this."""

import os
import subprocess
import time

from rl_jax.language.rewards import Score


def hostile():
    """Does as the response says."""

    def score(row, response, progress):
        if response == "hang":
            while True:
                time.sleep(0.01)
        if response == "eat":
            eaten = []
            while True:
                eaten.append(bytearray(2**24))
        if response == "die":
            os._exit(3)
        if response == "raise":
            raise KeyError("no such answer")
        if response == "print":
            os.write(1, b"x" * 300_000)
            subprocess.run(["echo", "y"])
        if response == "nan":
            return Score(float("nan"))
        if response == "devices":
            return Score(0.0, {"hidden": float(os.environ["CUDA_VISIBLE_DEVICES"] == "")})
        return Score(float(row["answer"]) + progress)

    return score


REWARDS = {"hostile": hostile}

"""How a rate is measured: variants of the same work run in turn, and the median of each counts."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rl_jax.core.experiment import Experiment
from rl_jax.core.fused import Window
from rl_jax.core.loop import Run
from rl_jax.core.program import PyTree

CALLS = 6  # queued up between two looks at the clock


class Variant(NamedTuple):
    """One way to do the work that a suite measures.

    Attributes:
      run: does some of it to its end and returns how much: updates, environment steps, images, operations.
      fused: the work of one compiled call.
      compile_seconds: that compiling the call took; 0 where it is not measured.
      flops, bytes: of one update, by XLA's count; 0 where they are not asked for.
      ours: fields of our configuration that bring it to the sizes of another library's variant.
    """

    run: Callable[[], int]
    fused: int = 1
    compile_seconds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    ours: Mapping[str, Any] = {}


Measure = Callable[[Mapping[str, Variant]], dict[str, float]]  # `rates` with the lengths that the flags give


def rates(variants: Mapping[str, Variant], repeats: int, seconds: float) -> dict[str, float]:
    """What each variant does a second: the median of timings taken in turn, after one call of each to warm up.

    Args:
      repeats: timings of each variant.
      seconds: the length of one timing; it has one call at least, and a call that has begun is finished.
    """
    samples: dict[str, list[float]] = {name: [] for name in variants}
    for variant in variants.values():
        variant.run()
    for _ in range(repeats):
        for name, variant in variants.items():
            begin, done = time.perf_counter(), 0
            while not done or time.perf_counter() - begin < seconds:
                done += variant.run()
            samples[name].append(done / (time.perf_counter() - begin))
    for name, values in samples.items():
        logging.info("%-14s median %.4g, from %.4g to %.4g", name, np.median(values), min(values), max(values))
    return {name: float(np.median(values)) for name, values in samples.items()}


def queued(step: Callable[[Any, jax.Array], Any], state: Any, *, fused: int = 1, calls: int = CALLS) -> Variant:
    """The variant of a compiled call (state, key) -> state that does `fused` units of work.

    It makes `calls` of them, each with a key of its own, before it waits for the last one.
    """
    carry = [state, jax.random.PRNGKey(1)]

    def run() -> int:
        for _ in range(calls):
            carry[1], key = jax.random.split(carry[1])
            carry[0] = step(carry[0], key)
        jax.block_until_ready(carry[0])
        return calls * fused

    return Variant(run, fused)


def trained(experiment: Experiment, config: ConfigDict, num_seeds: int, chunk: int) -> Variant:
    """The loop's own compiled step of `chunk` updates; it counts the updates of all `num_seeds` runs.

    Args:
      experiment: without a feed.
      config: of the experiment, as `core.loop.run` takes it.
    """
    config = config.copy_and_resolve_references()
    config.num_seeds = num_seeds
    start = Run(experiment, experiment.program(config), config, Path())
    with jax.set_mesh(start.mesh):
        init = jax.jit(start.init_runs, out_shardings=start.shardings)
        state = init(start.keys["init"], start.settings, start.resident)
    inputs = start.resident, None, start.keys["train"], start.settings
    step = start.steps.find(chunk, (state, *inputs))
    carry = state, start.put_window(Window.empty(start.num_runs, step.names))
    made = chained(lambda *carry: step.run(*carry, *inputs), carry, chunk, num_seeds)
    return made._replace(compile_seconds=start.steps.compile_seconds)


def chained(step: Callable[..., Sequence[PyTree]], carry: Sequence[PyTree], chunk: int, num_runs: int = 1) -> Variant:
    """A step of `chunk` updates of each run that takes what it returned before; it counts the updates of all runs."""
    carry = list(carry)
    calls = 1 if chunk > CALLS else CALLS  # as many as `queued` makes, where a call is short

    def run() -> int:
        for _ in range(calls):
            carry[:] = step(*carry)
        jax.block_until_ready(carry[1])
        return calls * chunk * num_runs

    return Variant(run, chunk)


def sgemm(size: int = 2048, dtype: Any = jnp.float32) -> Variant:
    """A product of two matrices [size, size]; it counts floating-point operations."""
    x = jnp.ones((size, size), dtype) / size
    product = jax.jit(lambda x: x @ x)

    def run() -> int:
        product(x).block_until_ready()
        return 2 * size**3

    return Variant(run)

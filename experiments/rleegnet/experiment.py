"""A classifier of motor imagery: learners of all folds in one program, judged on what each has not seen."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.agents.trial_dqn import trial_dqn
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.core.recent import with_recent
from rl_jax.data.eeg.folds import Fold, Layout, fit, layout, log_variances, observe, splits
from rl_jax.data.eeg.spatial import covariances, lda_scores, nearest_labels, patterns
from rl_jax.data.eeg.trials import RATE, Trials, folds_by_run, load_trials

ACCURACY = Metric("eval/correct", "accuracy")
BASELINES = ("lda", "nearest")
RECENT = 200  # steps of which the rewards are kept: the accuracy while training


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/rleegnet.py says.

    Raises:
      FileNotFoundError, ValueError: the data cannot be had, or a field of `config.data`, `window` or `agent` is wrong.
    """
    data = config.data
    if config.agent.name not in ("trial_dqn", *BASELINES):
        raise ValueError(unknown("config.agent.name", config.agent.name, ("trial_dqn", *BASELINES)))
    trials = load_trials(data.folder, data.task, data.bands, data.classes, data.span)
    windows = layout(trials.signals.shape[1], RATE, config.window.length, config.window.hop)
    learnt, weights = splits(data.protocol, folds_by_run(trials.runs, data.task), len(windows.starts), data.split_seed)
    if data.protocol == "windows" and config.agent.get("wait_cost", 0.0) > 0:
        raise ValueError("config.agent.wait_cost > 0 with config.data.protocol='windows': a trial that streams is "
                         "learnt from as a whole: split by runs")
    resident = {
        "signals": trials.signals, "labels": trials.labels, "learnt": learnt, "weights": weights,
        "covariance": np.asarray(covariances(trials.signals.swapaxes(1, 2))),  # [N, bands, C, C]
    }
    inputs = {
        "eeg": data.folder or "s001_imagery", "trials": len(trials.labels), "chance": 1.0 / len(trials.classes),
        "checksum": hashlib.sha256(trials.signals.tobytes() + trials.labels.tobytes()).hexdigest(),
    }
    return Experiment(lambda config: program(config, trials, windows, resident), inputs, ACCURACY)


def program(config: ConfigDict, trials: Trials, windows: Layout, resident: dict[str, np.ndarray]) -> Program:
    """Every leaf of the state but `step` has a leading axis of the folds."""
    num_classes, csp = len(trials.classes), config.csp
    baseline = config.agent.name in BASELINES
    agent = None if baseline else trial_dqn(
        config.agent, num_classes, lambda fold, trial, window: observe(fold, windows, trial, window)
    )
    learnt = resident["learnt"]  # of the host's arrays, by which `evaluate` judges
    of_folds = functools.partial(over_runs, seed_axis=default_seed_axis())

    def init(key: Key, resident: PyTree) -> TrainState:
        label_key, *keys = jax.random.split(key, 1 + len(resident["learnt"]))
        labels = resident["labels"]
        if config.data.permute_labels:  # the same permutation for all folds and another one for each seed
            labels = jax.random.permutation(label_key, labels)

        def one(key: Key, learnt: jax.Array, weights: jax.Array) -> TrainState:
            fold = fit(resident["signals"], resident["covariance"], labels, learnt, weights, num_classes, csp.pairs,
                       csp.shrinkage)
            state = TrainState.create({}, {}) if baseline else agent.init(key, fold)
            fitted = {"filters": fold.filters, "mean": fold.mean, "std": fold.std, "labels": labels}
            return state.replace(extra={"agent": state.extra, "fitted": fitted}, step=None)

        made = of_folds(one)(jnp.stack(keys), resident["learnt"], resident["weights"])
        return made.replace(step=jnp.zeros((), jnp.int32))

    def fold_of(state: TrainState, resident: PyTree, learnt: jax.Array) -> Fold:
        return Fold(signals=resident["signals"], learnt=learnt, **state.extra["fitted"])

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        number = state.step

        def one(state: TrainState, learnt: jax.Array, key: Key) -> tuple[TrainState, Metrics]:
            fold = fold_of(state, resident, learnt)
            new, metrics = agent.update(state.replace(step=number, extra=state.extra["agent"]), fold, key)
            return new.replace(step=None, extra=state.extra | {"agent": new.extra}), metrics

        keys = jax.random.split(key, len(resident["learnt"]))
        new, metrics = of_folds(one)(state.replace(step=None), resident["learnt"], keys)
        return new.replace(step=number), jax.tree.map(jnp.mean, metrics)

    def scores(state: TrainState, fold: Fold) -> jax.Array:
        """Of every window and action, [N, W, actions]."""
        shape = fold.learnt.shape
        trial, window = (x.reshape(-1) for x in jnp.indices(shape))
        if not baseline:
            return agent.values(state.params, observe(fold, windows, trial, window)).reshape(*shape, -1)
        features, labels = log_variances(fold, windows, trial, window), fold.labels[trial]
        weights = fold.learnt.reshape(-1)
        if config.agent.name == "lda":
            return lda_scores(features, labels, weights, num_classes, csp.shrinkage).reshape(*shape, -1)
        return jax.nn.one_hot(nearest_labels(features, labels, weights), num_classes).reshape(*shape, -1)

    @jax.jit
    def judged(states: TrainState, resident: PyTree) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(scores [S, F, N, W, actions], labels [S, N], patterns of the first fold [S, K, C])."""

        def one_run(state: TrainState) -> tuple[jax.Array, jax.Array, jax.Array]:
            def one(state: TrainState, learnt: jax.Array) -> jax.Array:
                return scores(state, fold_of(state, resident, learnt))

            fitted = state.extra["fitted"]
            mean = jnp.einsum("n,ncd->cd", resident["weights"][0], resident["covariance"][:, 0])
            shown = patterns(fitted["filters"][0, 0], mean)
            return of_folds(one)(state, resident["learnt"]), fitted["labels"][0], shown

        return over_runs(one_run, default_seed_axis())(states.replace(step=None))

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found, labels, shown = (np.asarray(x) for x in jax.device_get(gather(judged(state, resident))))
        outcomes = judgement(found, labels, learnt, config.data.protocol == "windows")
        if config.agent.get("wait_cost", 0.0) > 0:
            ends = config.data.span[0] + (np.array(windows.starts) + windows.length) / RATE
            outcomes |= streamed(decided(found, learnt), labels, ends)
        if config.agent.name == "lda" and not config.data.permute_labels:
            for place, name in enumerate(trials.classes):
                for end, at in (("most", 0), ("least", csp.pairs)):  # of its variance in this class
                    outcomes[f"pattern/{end}/{name.replace(' ', '_')}"] = shown[:, 2 * csp.pairs * place + at]
        return Evaluation(outcomes=outcomes)

    made = Program(init, step, evaluate, resident)
    rewarded = not baseline and config.agent.feedback == "reward"
    return with_recent(made, ["train/right"], RECENT) if rewarded else made


def decided(scores: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Of every window the scores of the fold that has not learnt from it: [S, N, W, A] of [S, F, N, W, A]."""
    fold = np.argmin(learnt, 0)  # [N, W]
    trial, window = np.indices(fold.shape)
    return scores[:, fold, trial, window]


def judgement(scores: np.ndarray, labels: np.ndarray, learnt: np.ndarray, of_windows: bool) -> dict[str, np.ndarray]:
    """The outcomes that all methods have; no reward and no label of what is judged has a part in the scores.

    Args:
      scores: [S, F, N, W, actions].
      labels: [S, N].
      learnt: [F, N, W].
      of_windows: whether windows are what is judged; else trials are, by the mean over their windows.
    """
    num_classes = labels.max() + 1
    scores = scores[..., :num_classes]
    own, wanted = decided(scores, learnt), np.broadcast_to(labels[:, :, None], labels.shape + learnt.shape[2:])
    windows = own.argmax(-1)
    trials = own.mean(2).argmax(-1)
    named, true = trials, labels
    if of_windows:
        named, true = windows.reshape(len(labels), -1), wanted.reshape(len(labels), -1)
    fits = scores.argmax(-1) == wanted[:, None]
    return {
        "correct": (named == true).astype(np.float32),
        "window_correct": (windows == wanted).reshape(len(labels), -1).astype(np.float32),
        "fitted": ((fits * learnt).sum((1, 2, 3)) / learnt.sum())[:, None].astype(np.float32),
        "kappa": np.array([[kappa(one, other, num_classes)] for one, other in zip(named, true)], np.float32),
    }


def kappa(named: np.ndarray, true: np.ndarray, num_classes: int) -> float:
    """Cohen's kappa of two [N]: agreement beyond chance, over the most that there can be."""
    expected = sum(np.mean(named == number) * np.mean(true == number) for number in range(num_classes))
    return float((np.mean(named == true) - expected) / (1.0 - expected))


def streamed(scores: np.ndarray, labels: np.ndarray, ends: np.ndarray) -> dict[str, np.ndarray]:
    """What is named first as windows come one after the other, and when; a trial that is waited through is wrong.

    Args:
      scores: [S, N, W, classes + 1], the last of which waits.
      ends: [W], seconds from the cue.
    """
    actions = scores.argmax(-1)
    decides = actions < scores.shape[-1] - 1
    first = np.where(decides.any(-1), decides.argmax(-1), scores.shape[2] - 1)
    named = np.take_along_axis(actions, first[..., None], -1)[..., 0]
    return {"correct": (named == labels).astype(np.float32), "decision_time": ends[first].astype(np.float32)}

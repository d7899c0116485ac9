"""EEG: a made EDF+ file, spatial filters beside scipy and of a known mixture, and splits that do not leak."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from rl_jax.data.eeg import folds, spatial, trials
from rl_jax.data.eeg.edf import SIGNAL_FIELDS, Annotation, read_edf
from rl_jax.data.eeg.electrodes import position

RNG = np.random.default_rng(0)
csp = jax.jit(spatial.csp, static_argnames=("num_classes", "pairs"))
lda_scores = jax.jit(spatial.lda_scores, static_argnames="num_classes")


def write_edf(path, raw, annotations, channels, rate=160, scale=2.0, kind=b"EDF+C"):
    """A file of int16 `raw` [channels, seconds * rate], a record a second, whose physical values are scale * raw."""
    seconds, labels, size = raw.shape[1] // rate, [*channels, "EDF Annotations"], 60
    values = {
        "label": labels, "physical_min": [-32768 * scale] * len(labels), "physical_max": [32767 * scale] * len(labels),
        "digital_min": [-32768] * len(labels), "digital_max": [32767] * len(labels),
        "samples": [rate] * len(channels) + [size // 2],
    }
    header = b"0".ljust(192) + kind.ljust(44) + str(seconds).encode().ljust(8) + b"1".ljust(8)
    header += str(len(labels)).encode().ljust(4)
    for name, width in SIGNAL_FIELDS.items():
        header += b"".join(str(x).encode().ljust(width) for x in values.get(name, [""] * len(labels)))
    records = b""
    for second in range(seconds):
        records += raw[:, second * rate : (second + 1) * rate].astype("<i2").tobytes()
        texts = b"+%d\x14\x14\x00" % second
        for onset, duration, text in annotations:
            if int(onset) == second:
                texts += b"+%g\x15%g\x14%s\x14\x00" % (onset, duration, text.encode())
        records += texts.ljust(size, b"\x00")
    path.write_bytes(header + records)


def test_a_file_is_read_back(tmp_path):
    raw = RNG.integers(-100, 100, (2, 480))
    events = [Annotation(0.0, 1.2, "T0"), Annotation(1.25, 1.5, "T2")]
    write_edf(tmp_path / "a.edf", raw, events, ["Fc5.", "Cz.."])
    found = read_edf(tmp_path / "a.edf")
    np.testing.assert_allclose(found.signals, 2.0 * raw, atol=1e-3)
    assert (found.channels, found.rate, found.annotations) == (("Fc5", "Cz"), 160.0, tuple(events))


@pytest.mark.parametrize("change, message", [
    (lambda content: content[:-7], "header says"),
    (lambda content: content.replace(b"\x0a", b"\x0d\x0a"), "line ends were converted"),
    (lambda content: content[:100], "is no EDF file"),
    (lambda content: content.replace(b"EDF+C", b"EDF+D"), "interrupted"),
])
def test_a_damaged_file_is_named(tmp_path, change, message):
    write_edf(tmp_path / "a.edf", np.full((1, 160), 10), [], ["Cz"])
    (tmp_path / "a.edf").write_bytes(change((tmp_path / "a.edf").read_bytes()))
    with pytest.raises(ValueError, match=f"a.edf.*{message}"):
        read_edf(tmp_path / "a.edf")


def test_runs_of_a_folder_become_trials(tmp_path):
    """T1 and T2 mean fists in runs 4, 8, 12 and both fists and both feet in 6, 10, 14; T0 is no trial."""
    for run in (4, 6, 8, 10, 12, 14):
        raw = RNG.integers(-100, 100, (3, 160 * 12))
        write_edf(tmp_path / f"S9R{run:02d}.edf", raw, [(0.0, 1, "T0"), (1.0, 4, "T2"), (6.5, 4, "T1")],
                  ["C3..", "Cz..", "C4.."])
    found = trials.load_trials(str(tmp_path))
    assert found.signals.shape == (12, 240, 1, 3) and found.channels == ("C3", "Cz", "C4")
    np.testing.assert_array_equal(found.labels, [1, 0, 3, 2] * 3)
    np.testing.assert_array_equal(found.runs, np.repeat([4, 6, 8, 10, 12, 14], 2))
    np.testing.assert_array_equal(trials.folds_by_run(found.runs), np.repeat([0, 1, 2], 4))
    assert np.abs(found.signals.mean(-1)).max() < 1e-4  # the average reference
    (tmp_path / "S9R08.edf").unlink()
    with pytest.raises(FileNotFoundError, match=r"0 files \*R08.edf"):
        trials.load_trials(str(tmp_path))


def test_the_embedded_trials_are_what_their_source_says():
    found = trials.load_trials(classes=(2, 3))
    assert found.signals.shape == (45, 240, 1, 64) and found.classes == ("both fists", "both feet")
    np.testing.assert_array_equal(np.bincount(found.labels), [21, 24])
    source = trials.EMBEDDED.with_name("SOURCE.md").read_text()
    assert hashlib.sha256(trials.EMBEDDED.read_bytes()).hexdigest() in source
    assert len({position(name) for name in found.channels}) == 64  # no two electrodes in one place


@pytest.mark.parametrize("fields, message", [
    ({"task": "movement"}, "what is embedded is imagery"), ({"bands": ((2.0, 30.0),)}, "no band within"),
    ({"classes": (1,)}, "two or more of 0 to 3"), ({"span": (0.5, 6.0)}, "within"),
])
def test_what_trials_cannot_be_is_named(fields, message):
    with pytest.raises(ValueError, match=message):
        trials.load_trials(**fields)


def test_generalised_eigenvectors_are_scipys():
    a, b = (x @ x.T + np.eye(6) for x in RNG.normal(size=(2, 6, 6)))
    values, vectors = jax.jit(spatial.generalised_eigh)(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    want, columns = scipy.linalg.eigh(a, b)
    np.testing.assert_allclose(values, want, rtol=1e-4)
    np.testing.assert_allclose(np.abs(vectors), np.abs(columns), rtol=1e-2, atol=1e-3)


def mixture(sources=4, channels=6, count=60):
    """(signals [N, T, C], labels, mixing [C, sources]): in class c source c is three times as strong as the others."""
    rng = np.random.default_rng(1)
    labels, mixing = np.arange(count) % sources, rng.normal(size=(channels, sources))
    strength = np.where(labels[:, None] == np.arange(sources), 3.0, 1.0)
    made = rng.normal(size=(count, 200, sources)) * strength[:, None]
    noise = 0.05 * rng.normal(size=(count, 200, channels))
    return jnp.asarray(made @ mixing.T + noise, jnp.float32), jnp.asarray(labels), mixing


def test_csp_finds_the_sources_of_a_mixture():
    """The pattern of each class's first filter is the column by which its source was mixed; LDA is then right, and the
    hidden half has no part in the filters."""
    signals, labels, mixing = mixture()
    weights = (jnp.arange(60) < 30).astype(jnp.float32)
    covariance = jax.jit(spatial.covariances)(signals)
    filters = csp(covariance, labels, weights, 4, 1, 0.001)
    assert filters.shape == (8, 6)
    shown = spatial.patterns(filters[::2], jnp.mean(covariance, 0))
    for own, column in zip(np.asarray(shown), mixing.T):
        assert abs(np.corrcoef(own, column)[0, 1]) > 0.98
    features = jnp.log(jnp.var(jnp.einsum("ntc,kc->ntk", signals, filters), 1))
    scores = lda_scores(features, labels, weights, 4, 0.1)
    assert float(jnp.mean(scores.argmax(1)[30:] == labels[30:])) == 1.0
    other = csp(covariance.at[30:].set(7.0), labels.at[30:].set(0), weights, 4, 1, 0.001)
    np.testing.assert_array_equal(filters, other)


def test_shrinkage_restores_the_rank_that_the_average_reference_takes():
    signals, _, _ = mixture()
    covariance = spatial.covariances(signals - signals.mean(-1, keepdims=True))[0]
    assert np.linalg.matrix_rank(np.asarray(covariance), tol=1e-5) == 5
    assert np.linalg.matrix_rank(np.asarray(spatial.shrunk(covariance, 0.1)), tol=1e-5) == 6
    assert float(jnp.trace(spatial.shrunk(covariance, 0.1))) == pytest.approx(1.0, abs=1e-5)


def test_lda_by_hand():
    """Means +-1 and a variance of 1 within classes: the score is x mu / s^2 - mu^2 / 2 s^2 + log p."""
    features = jnp.array([[0.0], [2.0], [-2.0], [0.0], [5.0]])
    scores = lda_scores(features, jnp.array([0, 0, 1, 1, 1]), jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]), 2, 0.0)
    x = np.array([0.0, 2.0, -2.0, 0.0, 5.0])
    np.testing.assert_allclose(scores, np.stack([x, -x], 1) - 0.5 + np.log(0.5), atol=1e-5)


def test_the_nearest_is_another_row_that_may_be_seen():
    features = jnp.array([[0.0], [0.1], [1.0], [0.9]])
    found = jax.jit(spatial.nearest_labels)(features, jnp.array([0, 1, 2, 3]), jnp.array([1.0, 0.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found, [3, 0, 3, 2])


def test_what_a_protocol_lets_leak():
    of_trials = np.repeat([0, 1, 2], 4)
    learnt, weights = folds.splits("runs", of_trials, 5, 0)
    np.testing.assert_array_equal(learnt.sum(0), 2.0)  # each window is tested once
    assert np.ptp(learnt, axis=2).max() == 0  # windows stay with their trial
    np.testing.assert_array_equal(weights == 0, of_trials == np.arange(3)[:, None])
    same, seen = folds.splits("csp", of_trials, 5, 0)
    np.testing.assert_array_equal(same, learnt)
    assert (seen == 1).all()
    torn, _ = folds.splits("windows", of_trials, 5, 0)
    np.testing.assert_array_equal(torn.sum(0), 2.0)
    assert np.ptp(torn, axis=2).max(0).mean() > 0.9  # nearly all trials are on both sides
    with pytest.raises(ValueError, match="config.data.protocol='run'"):
        folds.splits("run", of_trials, 5, 0)


def test_a_fold_sees_nothing_of_what_it_is_tested_on():
    """Other signals and labels in the tested run: the same filters and scales, bit for bit."""
    signals = jnp.asarray(RNG.normal(size=(8, 40, 1, 5)), jnp.float32)
    labels, learnt = jnp.arange(8) % 2, jnp.repeat(jnp.array([1.0, 0.0]), 4)[:, None] * jnp.ones((8, 3))

    @jax.jit
    def fitted(signals, labels):
        covariance = spatial.covariances(signals.swapaxes(1, 2))
        return folds.fit(signals, covariance, labels, learnt, learnt.mean(1), 2, 1, 0.1)

    clean, dirty = fitted(signals, labels), fitted(signals.at[4:].mul(9.0), labels.at[4:].set(0))
    for name in ("filters", "mean", "std"):
        np.testing.assert_array_equal(getattr(clean, name), getattr(dirty, name))
    windows = folds.layout(40, 10, 2.0, 0.5)
    assert windows == ((0, 5, 10, 15, 20), 20)
    seen = jax.jit(folds.observe, static_argnums=1)(clean, windows, jnp.array([1]), jnp.array([2]))
    want = (np.asarray(signals[1, 10:30, 0]) @ np.asarray(clean.filters[0]).T - clean.mean) / clean.std
    np.testing.assert_allclose(seen[0], want, atol=1e-4)
    with pytest.raises(ValueError, match="config.window"):
        folds.layout(40, 10, 5.0, 0.5)


def test_electrodes_by_hand():
    assert position("Cz") == (0.0, 0.0) and position("Fpz") == (0.0, 0.8)
    np.testing.assert_allclose(position("C3"), (-0.4, 0.0), atol=1e-9)
    np.testing.assert_allclose(position("T10"), (1.0, 0.0), atol=1e-9)
    np.testing.assert_allclose(position("O2"), (0.8 * np.sin(np.radians(162)), 0.8 * np.cos(np.radians(162))))
    with pytest.raises(ValueError, match="'Q3' is none of the 10-10 system"):
        position("Q3")

"""CPL's experiment: how policies are judged, what the labels are of, and what its presets set."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import cpl
from experiments.cpl.claims import PAPER
from experiments.cpl.experiment import experiment
from experiments.reproduce import load_preset
from rl_jax.core import loop
from rl_jax.data.episodes import Episodes
from rl_jax.envs import meta_world_data
from rl_jax.envs.linear_quadratic import double_integrator, environment


def configured(preset, fields={}):
    config = cpl.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


def test_a_policy_that_does_nothing_costs_what_it_does_by_hand():
    config = configured("tiny")
    made = experiment(config)
    program = made.program(config)
    state = jax.tree.map(lambda x: 0 * x[None], program.init(jax.random.key(0), program.resident))
    state = state.replace(step=jnp.int32(0))
    found = program.evaluate(state, program.resident, jax.random.key(1)).outcomes["cost_ratio"]
    task, problem = environment(double_integrator()), double_integrator()
    keys = jax.random.split(jax.random.split(jax.random.key(0))[0], config.eval_episodes)
    states, costs = np.array(jax.vmap(task.reset)(keys)[1], np.float64), 0.0
    for _ in range(problem.horizon):
        costs, states = costs + (states**2).sum(1), states @ problem.dynamics.T
    optimum = made.finish(FakeResult(program, state), None)["optimal_cost"]
    np.testing.assert_allclose(found[0], costs / optimum, rtol=1e-4)
    assert found.mean() > 10


class FakeResult:
    """What `finish` reads of a result."""

    def __init__(self, program, state):
        self.state = state


def test_labels_and_the_best_segments_are_of_the_score_that_is_asked_for():
    by_regret, by_return = (
        experiment(configured("tiny", {"dataset.label": label})).program(configured("tiny")).resident
        for label in ("regret", "return")
    )
    assert by_regret.scores.max() <= 1e-3 and np.corrcoef(by_regret.scores, by_return.scores)[0, 1] < 0.95
    config = configured("tiny-bc10")
    best = experiment(config).program(config).resident
    assert len(best) == len(by_regret) // 10 and set(best.scores) <= set(np.sort(by_regret.scores)[-len(best):])
    with pytest.raises(ValueError, match="unknown label in config.dataset.label 'regrets': did you mean regret"):
        experiment(configured("tiny", {"dataset.label": "regrets"}))


@pytest.mark.parametrize("method, batch, fields", [  # the authors' files, configs/mw_state_*/<method>.yaml
    ("cpl", 96, {"alpha": 0.1, "bias": 0.5, "cloning_weight": 0.0, "reference": False, "contrastive_rate": 1.0}),
    ("cpl_bc", 96, {"alpha": 0.1, "bias": 1.0, "cloning_weight": 1.0, "cloned": "all", "contrastive_rate": 1.0}),
    ("cpl_kl", 96, {"alpha": 0.2, "bias": 0.75, "reference": True, "warmup_steps": 10_000, "contrastive_rate": 0.1}),
    ("sft", 96, {"contrastive": False, "cloned": "preferred", "cloning_steps": 200_000, "learning_rate": 1e-4}),
    ("piql", 96, {"expectile": 0.7, "temperature": 3.0, "decay_steps": 500_000, "reward_share": 0.1,
                  "learning_rate": 3e-4}),
    ("bc10", 1024 // 64 // 2, {"contrastive": False, "cloned": "all", "learning_rate": 1e-4}),  # of oracle/
])
def test_the_paper_presets_are_the_authors(method, batch, fields):
    config, sparse = (configured(f"{kind}-{method}/drawer-open") for kind in ("paper", "sparse"))
    assert {name: config.agent[name] for name in fields} == fields
    assert (config.batch_size, config.num_steps, config.loop.eval_every) == (batch, 500_000, 5000)
    assert (config.dataset.num_steps // 64, config.dataset.pairing) == (2500, "rank")
    assert tuple(config.agent.hidden_dims) == (512, 512) and config.agent.dropout == 0.25
    assert (sparse.dataset.num_steps // 64, sparse.dataset.pairing) == (20_000, "comparison")
    assert (sparse.agent, sparse.batch_size, sparse.num_steps) == (config.agent, batch, 500_000)


@pytest.mark.parametrize("method, batch, pairing, fields", [  # configs/mw_image_*/<method>.yaml
    ("cpl", 64, "score", {"alpha": 0.1, "bias": 0.5, "cloning_weight": 0.0, "contrastive_rate": 1.0}),
    ("cpl_bc", 64, "score", {"alpha": 0.1, "bias": 1.0, "cloning_weight": 1.5, "contrastive_rate": 1.0}),
    ("cpl_kl", 64, "score", {"alpha": 0.2, "bias": 0.75, "reference": True, "contrastive_rate": 0.1}),
    ("sft", 32, "rank", {"contrastive": False, "cloned": "preferred"}),
])
def test_the_image_presets_are_the_authors(method, batch, pairing, fields):
    dense, sparse = (configured(f"{kind}-{method}/drawer-open") for kind in ("image", "image-sparse"))
    for config in (dense, sparse):
        assert {name: config.agent[name] for name in fields} == fields
        assert (config.agent.learning_rate, config.agent.dropout, config.agent.warmup_steps) == (1e-4, 0.5, 10_000)
        assert (config.dataset.picture, config.loop.eval_every, config.num_seeds) == (64, 2500, 4)
    assert (dense.num_steps, dense.agent.cloning_steps, dense.batch_size) == (120_000, 40_000, batch)
    assert (dense.dataset.num_steps // 64, dense.dataset.pairing) == (2500, pairing)
    assert (sparse.num_steps, sparse.agent.cloning_steps, sparse.batch_size) == (200_000, 80_000, 48)
    assert (sparse.dataset.num_steps // 64, sparse.dataset.pairing) == (20_000, "comparison")


def test_published_numbers_are_of_what_is_seen():
    """The card's first and last rows, in the preset that they belong to and in no other."""
    given = {name: load_preset(PAPER, name).published or PAPER.published for name in PAPER.presets}
    (states,), (pictures,) = given["paper"], given["images"]
    assert {name for name, published in given.items() if published == (pictures,)} == {"images"}
    for source, dense, sparse in ((states, (0.669, 0.706, 0.8), (0.509, 0.734, 0.812)),
                                  (pictures, (0.747, 0.837, 0.8), (0.558, 0.725, 0.72))):
        numbers = [source.values[method] for method in ("sft", "piql", "cpl")]
        np.testing.assert_allclose([own["bin-picking"][0] for own in numbers], dense)
        np.testing.assert_allclose([own["sweep-into-sparse"][0] for own in numbers], sparse)


def test_presets_for_a_cpu_keep_their_rate():
    for preset in ("cpl_kl/double_integrator", "cpl_kl/drawer-open", "cpl_kl/pictures", "tiny-cpl_kl"):
        assert cpl.get_config(preset).agent.contrastive_rate == 1.0


def test_pictures_at_the_authors_size():
    """Shapes alone: 64 pixels leave 25 after the convolutions, which 50 features and two layers of 1024 read."""
    config = configured("full", {"dataset.num_steps": 6400})
    program = experiment(config).program(config)
    sizes = jax.tree.map(lambda x: x.size, jax.eval_shape(program.init, jax.random.key(0), program.resident).params)
    convolutions = 9 * 3 * 32 + 32 + 3 * (9 * 32 * 32 + 32)
    behind = 25 * 25 * 32 * 50 + 50 + 2 * 50 + 50 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 + 1
    assert sum(jax.tree.leaves(sizes)) == convolutions + behind


@pytest.mark.parametrize("preset", ["image-sft", "image-sparse-cpl_kl"])
def test_image_presets_take_a_step(preset, monkeypatch):
    """Shapes alone, at the authors' size, of pictures that nobody drew."""
    count, length = 4, 64
    steps = np.zeros(count * length, np.float32)
    ends, values = np.arange(1, count * length + 1) % length == 0, {"value": steps, "next_value": steps}
    pictures, actions = np.zeros((count * length, 64, 64, 3), np.uint8), np.zeros((count * length, 4), np.float32)
    starts = np.arange(0, count * length, length)
    made = Episodes(pictures, actions, steps, np.zeros_like(ends), ends, pictures, starts, values)
    info = {"behaviour_success": 0.0, "expert_success": 1.0}
    monkeypatch.setattr(meta_world_data, "load_segments", lambda *_: (made, info))
    config = configured(f"{preset}/drawer-open")
    program = experiment(config).program(config)
    state = jax.eval_shape(program.init, jax.random.key(0), program.resident)
    after, metrics = jax.eval_shape(program.step, state, program.resident, None, jax.random.key(0))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    assert ("actor/accuracy" in metrics) == config.agent.contrastive


def test_pictures_for_a_cpu_are_the_double_integrators_but_for_the_picture():
    """A shift of a sixteenth of the width, as the authors' is; the data and labels are those of the states."""
    small, whole, states = (configured(name) for name in ("cpl/pictures", "full", "cpl/double_integrator"))
    assert small.dataset.picture // small.agent.shift == whole.dataset.picture // whole.agent.shift == 16
    small.dataset.picture = 0
    assert small.dataset == states.dataset
    with pytest.raises(ValueError, match="unknown preset 'piql/pictures'"):
        cpl.get_config("piql/pictures")


MADE = {"dataset.num_steps": 384, "num_seeds": 1, "num_steps": 4, "batch_size": 8, "eval_episodes": 2}
SHORT = MADE | {"agent.hidden_dims": (16, 16), "loop.chunk": 2, "loop.log_every": 2, "loop.eval_every": 4}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cpl", "piql"])
def test_meta_world_from_its_segments_to_a_share_of_successes(method, tmp_path):
    config = configured(f"{method}/drawer-open", SHORT | {"dataset.data_dir": str(tmp_path)})
    made = experiment(config)
    result = loop.run(made, config, tmp_path / "run")
    assert set(np.ravel(result.evaluations[-1]["eval/return"])) <= {0.0, 0.5, 1.0}
    assert made.finish(result, tmp_path)["best"] == 1.0  # the script succeeds


def drawn(module, *flags):
    """What a binary says that needs something that draws."""
    done = subprocess.run([sys.executable, "-m", module, *flags], env=os.environ | {"MUJOCO_GL": "egl"},
                          capture_output=True, text=True, timeout=600)
    if "MuJoCo cannot draw here" in done.stderr:
        pytest.skip("neither a GPU nor Mesa's EGL draws here")
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def flags_of(preset, fields, workdir):
    found = [f"--config.{name}={value}" for name, value in fields.items()]
    return [f"--config=configs/cpl.py:{preset}", f"--workdir={workdir}", *found]


@pytest.mark.slow
def test_meta_world_from_pictures(tmp_path):
    fields = SHORT | {"dataset.num_steps": 32, "dataset.segment_length": 8, "dataset.picture": 16, "eval_episodes": 1,
                      "dataset.data_dir": tmp_path, "loop.eval_every": 0}
    last = drawn("experiments.cpl.train", *flags_of("image-cpl/drawer-open", fields, tmp_path / "run"))
    assert json.loads(last.splitlines()[-1])["step"] == 4


@pytest.mark.slow
def test_a_run_is_filmed(tmp_path):
    flags = flags_of("cpl/drawer-open", SHORT | {"dataset.data_dir": tmp_path, "loop.eval_every": 0}, tmp_path / "cpl")
    drawn("experiments.cpl.train", *flags)
    said = drawn("experiments.cpl.film", f"--runs={tmp_path / 'cpl'}", f"--path={tmp_path / 'film.png'}")
    assert said.strip().endswith("film.png: CPL")
    width, height = Image.open(tmp_path / "film.png").size
    assert width > 4 * height  # one strip

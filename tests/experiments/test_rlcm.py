"""RLCM's experiments end to end on tiny runs; bad settings; its claims on made-up outcomes."""

import jax
import numpy as np
import pytest

from configs import rlcm as configs
from experiments.rlcm import claims
from experiments.rlcm.experiment import CHECKPOINTS, DATA, experiment
from rl_jax.core.main import run
from rl_jax.core.metrics import read_metrics
from rl_jax.core.outcomes import read_outcomes
from rl_jax.generative.domains import load_domain
from rl_jax.generative.experiments import load_generator
from rl_jax.networks.model_file import load_model, save_model
from rl_jax.reports.judging import judge
from rl_jax.reports.measures import Evaluations
from rl_jax.reports.scores import Scores, check_declared

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The file of a model as it is before any training."""
    domain, path = load_domain("digits", DATA, CHECKPOINTS), tmp_path_factory.mktemp("model") / "model.npz"
    save_model(path, jax.jit(domain.init)(jax.random.key(0)), kind="consistency", domain="digits")
    return path


@pytest.fixture
def one_device(monkeypatch):
    """Compiling for the session's eight devices takes longer."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


def config_of(preset, **fields):
    config = configs.get_config(preset)
    config.update_from_flattened_dict(fields)
    return config


@pytest.mark.parametrize("preset", claims.PAPER.presets)
def test_every_run_of_the_paper_has_a_configuration(preset):
    declared = claims.PAPER.presets[preset]()
    check_declared(declared, claims.PAPER.labels)
    for one in declared.runs:
        configs.get_config(one.config.partition(":")[2]).update_from_flattened_dict(dict(one.overrides))


@pytest.mark.parametrize(
    "preset", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tiny-align", "tiny-ddpo"))]
)
def test_fine_tuning_goes_from_a_model_to_its_last_line(preset, untrained, one_device, tmp_path):
    config = config_of(preset)
    if preset != "tiny-ddpo":
        config.model.path = str(untrained)
    last = run(experiment, config, tmp_path)
    assert last["step"] == 4 and last["images"] == 96
    assert last["before"]["flat_bytes"] == 344.0 and last["after"]["bytes"] > 344.0
    assert all((tmp_path / name).exists() for name in ("before.png", "after.png", "rewards.png"))
    found = read_outcomes(tmp_path / "outcomes.npz")
    calls = ("",) if preset == "tiny-ddpo" else ("", "_1_step", "_2_steps")
    shapes = {f"{name}{call}": 20 for name in ("bytes", "judge_accuracy") for call in calls}
    assert {name: x.shape[2] for name, x in found.values.items()} == shapes | {
        "reward": 20, "std_within_prompt": 10, "flat_bytes": 1
    }
    assert found.steps.tolist() == [0, 2, 4] and found.values["reward"].shape[:2] == (3, 2)
    np.testing.assert_allclose(found.values["bytes"][-1].mean(), last["after"]["bytes"])
    # Both runs begin with the same model, and each goes its own way.
    np.testing.assert_array_equal(*found.values["bytes"][0])
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert any("model/grad_norm" in line and "model/update_norm" in line for line in metrics)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tune", "distill"])
def test_a_pretraining_leaves_a_model_and_a_picture(method, tmp_path):
    config = config_of("tiny-pretrain", **{"pretraining.method": method})
    config.pretraining.from_diffusion = method == "distill"
    last = run(experiment, config, tmp_path)
    load_model(tmp_path / "model.npz", "consistency", "digits", load_domain("digits", DATA, CHECKPOINTS).init)
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (8 * 33, 10 * 33)
    assert 0.0 <= last["after"]["judge_accuracy"] <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"{domain}-pretrain-{part}" for domain, part in configs.PARTS])
def test_a_network_beside_the_generator_trains(name, tmp_path):
    fields = {"num_steps": 20, "loop.log_every": 10, "loop.chunk": 10, "loop.eval_every": 20}
    run(experiment, config_of(name, **fields), tmp_path)
    metric = "contrastive/loss" if name == "emoji-pretrain-similarity" else "model/loss"
    losses = [line[metric] for line in read_metrics(tmp_path / "metrics.jsonl") if metric in line]
    assert losses[-1] < losses[0] and (tmp_path / "model.npz").exists()


@pytest.mark.slow
def test_the_default_job_fine_tunes_emoji(tmp_path):
    small = {"num_steps": 2, "batch_size": 16, "loop.eval_every": 2, "loop.log_every": 2, "evaluation_images": 16}
    config = config_of("quick", **small | {"model.num_calls": 4, "tuning.chunk_size": 16, "checkpoint.every": 2})
    last = run(experiment, config, tmp_path)
    assert last["before"]["judge_accuracy"] > 0.5 and 600 < last["before"]["flat_bytes"] < 700
    with Image.open(tmp_path / "after.png") as picture:
        assert picture.size == (8 * 33, 16 * 33)


@pytest.mark.parametrize("kind", ["consistency", "diffusion"])
@pytest.mark.parametrize("domain", ["digits", pytest.param("emoji", marks=pytest.mark.slow)])
def test_the_committed_models_fit_their_networks(domain, kind):
    config = config_of(f"{domain}-compress" if kind == "consistency" else f"{domain}-ddpo-compress")
    _, params = load_generator(config, load_domain(domain, DATA, CHECKPOINTS), kind, CHECKPOINTS)
    assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"domain": "digit"}, "unknown config.domain 'digit': did you mean digits"),
        ({"reward": "aesthetic"}, "reward 'aesthetic' needs clip, head"),
        ({"reward": "compress"}, "unknown reward 'compress'"),
        ({"task": "tune"}, "unknown config.task 'tune'"),
        ({"overlap": -1}, "config.overlap=-1"),
        ({"model.fewest_calls": 1}, "model.fewest_calls=1: give 0, or of a consistency model 2 to num_calls=3"),
        ({"tuning.objective": "pg"}, "objective is 'pg'"),
        ({"task": "pretrain", "pretraining.method": "teach"}, "unknown config.pretraining.method 'teach'"),
        ({"task": "pretrain", "pretraining.method": "distill"}, "has a diffusion model as its teacher"),
        ({"task": "pretrain", "pretraining.optimiser": "sgd"}, "unknown config.pretraining.optimiser 'sgd'"),
        ({"task": "pretrain", "model.kind": "jury"}, "unknown config.model.kind 'jury'"),
        ({"task": "pretrain", "domain": "emoji", "model.kind": "judge", "batch_size": 200}, "there are 130"),
    ],
)
def test_settings_that_cannot_work_are_named(fields, message):
    config = config_of("tiny", **fields)
    with pytest.raises(ValueError, match=message):
        experiment(config).program(config)


# Claims


def verdicts(preset="digits", **outcomes):
    """Verdicts by name, of runs of two seeds; outcome -> {(method, task): [T] values}, 0 where nothing is said."""
    scores = scores_of(preset, outcomes)
    with np.errstate(all="ignore"):  # claims about what nothing is said of
        return {claim.name: judge(claim, scores) for claim in scores.preset.claims}


def scores_of(preset, outcomes):
    declared = claims.PAPER.presets[preset]()
    evaluations = {}
    for one in declared.runs:
        values = {name: by_run.get((one.method, one.task), [0.0] * 3) for name, by_run in outcomes.items()}
        arrays = {name: np.repeat(np.array(x, float)[:, None, None], 2, 1) for name, x in values.items()}
        seconds = np.array(values.get("train_seconds", [0.0] * 3), float)
        evaluations[one.name] = Evaluations(np.array([0, 100, 300]), seconds, arrays)
    return Scores(claims.PAPER, declared, evaluations)


def test_claims_by_hand():
    rlcm, ddpo = ("rlcm", "compress"), ("ddpo", "compress")
    outcomes = {
        "bytes": {rlcm: [744, 600, 444], ddpo: [750, 590, 580]}, "flat_bytes": {rlcm: [344] * 3, ddpo: [344] * 3},
        "train_seconds": {rlcm: [0, 10, 30], ddpo: [0, 40, 120]}, "bytes_1_step": {rlcm: [0, 0, 500]},
        "bytes_2_steps": {rlcm: [0, 0, 460]}, "judge_accuracy": {}, "std_within_prompt": {},
    }
    found = verdicts(**outcomes)
    expected = {
        "rlcm_reaches_bytes_gone_on_compress": (0.75, "pass"),
        # Means over 300 steps, by trapezoids: (672 * 100 + 522 * 200) / 300 and (670 * 100 + 585 * 200) / 300.
        "rlcm_better_by_than_ddpo_on_compress": ((670 - 672 + 2 * (585 - 522)) / 3, "pass"),
        # Half and 90% of the way of DDPO, 665 and 597 bytes: it has both after 40 seconds, RLCM after 10 and 30.
        "rlcm_faster_than_ddpo_to_50%": (10 / 40, "pass"),
        "rlcm_faster_than_ddpo_to_90%": (30 / 40, "fail"),
        "rlcm_within_between_on_compress": (40 / 56, "pass"),
    }
    for name, (value, verdict) in expected.items():
        assert found[name]["value"] == pytest.approx(value) and found[name]["verdict"] == verdict


@pytest.mark.parametrize("preset", ["digits", "emoji-stopped"])
@pytest.mark.parametrize(
    "accuracies, fall, verdict", [([0.9, 0.85, 0.2], 0.15, "pass"), ([0.9, 0.79, 0.2], 0.0, "fail")]
)
def test_the_judge_stops_a_run(preset, accuracies, fall, verdict):
    rlcm = ("rlcm", "compress")
    found = verdicts(
        preset, bytes={rlcm: [744, 684, 444]}, flat_bytes={rlcm: [344] * 3}, judge_accuracy={rlcm: accuracies}
    )["stopped_by_the_judge"]
    assert found["value"] == pytest.approx(fall) and found["verdict"] == verdict


def test_one_coefficient_of_the_divergence_is_enough():
    methods = [(name, "compress") for name in claims.KL]
    found = verdicts(
        bytes=dict(zip(methods, ([744, 0, 444], [744, 0, 684], [744, 0, 740]), strict=True)),
        flat_bytes={method: [344] * 3 for method in methods},
        judge_accuracy=dict(zip(methods, ([1, 0, 0.3], [1, 0, 0.85], [1, 0, 0.9]), strict=True)),
    )["kl_keeps_the_prompts"]
    assert found["verdict"] == "pass" and found["value"] == pytest.approx(0.85) and "KL 0.2" in found["detail"]


def test_what_the_judge_keeps_is_claimed_where_an_update_has_an_image_of_every_prompt(tmp_path):
    kept = {"kl_keeps_the_prompts", "stopped_by_the_judge"}
    expected = {"emoji": (32, 0), "emoji-large": (520, 2), "digits": (160, 2), "emoji-stopped": (130, 2)}
    for preset, (images, count) in (expected | {"emoji-kl": (130, 1)}).items():
        declared = claims.PAPER.presets[preset]()
        run = next(run for run in declared.runs if run.task == "compress" and "rlcm" in run.method)
        assert config_of(run.config.partition(":")[2], **run.overrides).batch_size == images
        assert len(kept & {claim.name for claim in declared.claims}) == count, preset
        assert any(claim.elsewhere for claim in declared.claims) == (preset == "emoji-stopped")
    outcomes = {"bytes": [744, 684, 444], "flat_bytes": [344] * 3, "judge_accuracy": [0.9, 0.8, 0.1]}
    outcomes = {name: {(run.method, run.task): x for run in declared.runs} for name, x in outcomes.items()}
    claims.draw_kept(scores_of("emoji-kl", outcomes), tmp_path / "kept.png")
    with Image.open(tmp_path / "kept.png") as picture:
        assert picture.width > picture.height

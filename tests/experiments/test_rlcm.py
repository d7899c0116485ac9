"""RLCM's binary end to end on a tiny model; its models' files; its claims on made-up outcomes."""

import json

import jax
import numpy as np
import pytest

from configs import rlcm as configs
from experiments.declaration import Evaluations, Run, Scores
from experiments.reproduce import load_preset
from experiments.rlcm import reproduce, train
from experiments.rlcm.domain import load_domain
from experiments.rlcm.emoji import PARTS, load_emoji
from experiments.rlcm.models import load_model, save_model

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """The file of a model as it is before any training."""
    domain, path = load_domain("digits"), tmp_path_factory.mktemp("model") / "model.npz"
    save_model(path, domain.init(jax.random.key(0)), kind="consistency", domain="digits")
    return path


def test_every_preset_of_the_paper_names_configurations_that_exist():
    for name in reproduce.PAPER.presets:
        for run in load_preset(reproduce.PAPER, name).runs:
            configs.get_config(run.config.partition(":")[2]).update_from_flattened_dict(dict(run.overrides))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tune", "distill"])
def test_a_pretraining_leaves_a_model_and_a_picture(method, tmp_path):
    config = configs.get_config("tiny-pretrain")
    config.pretraining.update({"method": method, "from_diffusion": method == "distill"})
    summary = train.main(config, tmp_path)
    load_model(train.Path(summary["model"]), "consistency", "digits", load_domain("digits").init)
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size == (8 * 33, 10 * 33)
    assert 0.0 <= summary["judge_accuracy"][0] <= 1.0


@pytest.mark.parametrize("preset", ["tiny", pytest.param("tiny-align", marks=pytest.mark.slow)])
def test_fine_tuning_goes_on_from_a_model_to_its_summary(preset, untrained, tmp_path):
    config = configs.get_config(preset)
    config.model.path = str(untrained)
    summary = json.loads(json.dumps(train.main(config, tmp_path)))
    assert summary["step"] == 4 and summary["images"] == 96 and len(summary["bytes"]) == 2
    assert summary["flat_bytes"] == [344.0] and all(size > 344 for size in summary["bytes"])
    assert (tmp_path / "before.png").exists() and (tmp_path / "after.png").exists()
    found = reproduce.read(tmp_path, summary)
    assert found.steps.tolist() == [0, 2, 4] and found.scores.shape == (3, 2, len(reproduce.COLUMNS))
    name = reproduce.TASKS[reproduce.task_of(preset)]
    np.testing.assert_allclose(found.scores[-1, :, 0], summary[name])
    np.testing.assert_allclose(found.scores[0, :, 0], summary["start"][name][0])
    # The same number of images and another run: parameters have moved, each run's in its own way.
    assert summary["bytes"][0] != summary["bytes"][1]


def test_judges_saw_different_halves_and_know_the_digits():
    domain = load_domain("digits")
    judges = domain.judges()
    half = np.random.default_rng(0).permutation(len(domain.images))[: len(domain.images) // 2]
    assert (judges.log_probs(judges.judge, domain.images[half]).argmax(-1) == domain.prompts[half]).mean() > 0.9
    one, other = (jax.tree.leaves(params) for params in (judges.reward, judges.judge))
    assert any((x != y).any() for x, y in zip(one, other, strict=True))


def test_the_emoji_come_back_from_their_latents_and_both_judges_know_them():
    domain = load_domain("emoji")
    assert len(domain.names) == 130 and domain.images.shape == (2600, 8, 8, 4)
    np.testing.assert_allclose([domain.images.mean(), domain.images.std()], [0.0, 0.5], atol=1e-3)
    latents, prompts = domain.images[:260], domain.prompts[:260]
    pixels = np.asarray(jax.jit(domain.decode)(latents))
    error = np.sqrt(np.mean((pixels - (load_emoji().pixels / 2 + 0.5)) ** 2))
    assert error < 0.08  # white for everything would be 0.34 off
    assert domain.render(pixels).shape == (260, 32, 32, 3) and domain.render(pixels).dtype == np.uint8
    judges = domain.judges()
    assert (jax.jit(judges.log_probs)(judges.judge, latents).argmax(-1) == prompts).mean() > 0.9
    assert (jax.jit(judges.scores)(judges.reward, latents).argmax(-1) == prompts).mean() > 0.9


@pytest.mark.parametrize("domain", ["emoji", "digits"])
@pytest.mark.parametrize("kind", ["consistency", "diffusion"])
def test_the_committed_models_are_there_and_fit(domain, kind):
    config = configs.get_config(f"{domain}-compress" if kind == "consistency" else f"{domain}-ddpo-compress")
    params = train.load(config, load_domain(domain))
    assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in jax.tree.leaves(params))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(PARTS))
def test_what_stands_beside_the_generator_trains(kind, tmp_path):
    config = configs.get_config(f"emoji-pretrain-{kind}")
    config.update_from_flattened_dict({"num_steps": 20, "loop.log_every": 10, "loop.chunk": 10, "loop.eval_every": 20})
    summary = train.main(config, tmp_path)
    load_model(train.Path(summary["model"]), kind, "emoji", PARTS[kind](load_emoji()).init)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    name = "contrastive/loss" if kind == "similarity" else "model/loss"
    losses = [line[name] for line in lines if name in line]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_the_default_job_fine_tunes_emoji(tmp_path):
    config = configs.get_config("quick")
    small = {"num_steps": 2, "batch_size": 16, "loop.eval_every": 2, "loop.log_every": 2, "evaluation_images": 0}
    config.update_from_flattened_dict(small | {"model.num_calls": 4, "tuning.chunk_size": 16, "checkpoint.every": 2})
    summary = json.loads(json.dumps(train.main(config, tmp_path)))
    assert summary["start"]["judge_accuracy"][0] > 0.5 and 600 < summary["flat_bytes"][0] < 700
    with Image.open(tmp_path / "after.png") as picture:
        assert picture.size == (train.COLUMNS * 33, train.ROWS * 33)


def test_a_model_that_does_not_fit_is_named(tmp_path, untrained):
    domain, path = load_domain("digits"), tmp_path / "model.npz"
    with pytest.raises(FileNotFoundError, match="no such model: make one with a preset of pretraining"):
        load_model(path, "consistency", "digits", domain.init)
    with pytest.raises(ValueError, match="'kind': 'consistency'.* and diffusion of digits is asked for"):
        load_model(untrained, "diffusion", "digits", domain.init)
    save_model(path, {"params": {"a": np.zeros(3)}}, kind="consistency", domain="digits")
    with pytest.raises(ValueError, match=r"params/Dense_0/bias is None and the network's \(192,\): pretrain it again"):
        load_model(path, "consistency", "digits", domain.init)
    for fields, message in (
        ({"domain": "digit"}, "unknown domain 'digit': did you mean digits"),
        ({"reward": "aesthetic"}, "reward 'aesthetic' needs clip, head"),
        ({"reward": "compress"}, "unknown reward 'compress'"),
        ({"task": "tune"}, "unknown config.task 'tune'"),
        ({"task": "pretrain", "pretraining.method": "teach"}, "unknown config.pretraining.method 'teach'"),
        ({"task": "pretrain", "pretraining.method": "distill"}, "has a diffusion model as its teacher"),
    ):
        config = configs.get_config("tiny")
        config.model.path = str(untrained)
        config.update_from_flattened_dict(fields)
        with pytest.raises(ValueError, match=message):
            train.make_program(config, tmp_path)


def scores_of(**outcomes):
    """Runs of two seeds; column -> {(method, task): [T] values}, 0 where nothing is said."""
    keys = sorted({key for values in outcomes.values() for key in values})
    runs = [Run(method, task, "", "") for method, task in keys]
    evaluations = {}
    for run in runs:
        steps = np.array([0, 100, 300])
        array = np.zeros((3, 2, len(reproduce.COLUMNS)))
        for name, values in outcomes.items():
            if (run.method, run.task) in values:
                array[..., reproduce.COLUMNS.index(name)] = np.array(values[run.method, run.task])[:, None]
        evaluations[run.name] = Evaluations(steps, array, array, 0.0)
    return Scores(runs, evaluations)


def test_claims_by_hand():
    rlcm, ddpo = ("rlcm", "compress"), ("ddpo", "compress")
    scores = scores_of(
        bytes={rlcm: [744, 600, 444], ddpo: [750, 590, 580]}, flat_bytes={rlcm: [344] * 3, ddpo: [344] * 3},
        train_seconds={rlcm: [0, 10, 30], ddpo: [0, 40, 120]}, bytes_1_step={rlcm: [0, 0, 500]},
        bytes_2_steps={rlcm: [0, 0, 460]},
    )
    claims = {claim.name: claim for claim in reproduce.claims(reproduce.AT_600)}
    names = ("bytes_fall", "not_below_ddpo", "faster_than_ddpo", "two_steps_between")
    found = {name: claims[name].check(scores) for name in names}
    assert found["bytes_fall"].value == pytest.approx(0.75) and found["bytes_fall"].passed
    assert found["not_below_ddpo"].value == -10 and not found["not_below_ddpo"].passed
    assert found["faster_than_ddpo"].value == pytest.approx(0.25) and found["faster_than_ddpo"].passed
    assert found["two_steps_between"].value == pytest.approx(40 / 56) and found["two_steps_between"].passed
    sooner = reproduce.AT_DDPOS_END.check(scores)  # 580 bytes, first seen after 30 seconds
    assert sooner.value == pytest.approx(30 / 120) and sooner.passed


@pytest.mark.parametrize(
    ("accuracies", "fall", "passed"), [([0.9, 0.85, 0.2], 0.15, True), ([0.9, 0.79, 0.2], 0.0, False)]
)
def test_the_judge_stops_a_run(accuracies, fall, passed):
    rlcm = ("rlcm", "compress")
    scores = scores_of(
        bytes={rlcm: [744, 684, 444]}, flat_bytes={rlcm: [344] * 3}, judge_accuracy={rlcm: accuracies}
    )
    claims = {claim.name: claim for claim in reproduce.claims(reproduce.AT_600)}
    found = claims["stopped_by_the_judge"].check(scores)
    assert found.value == pytest.approx(fall) and found.passed == passed


def test_one_coefficient_of_the_divergence_is_enough():
    methods = [(name, "compress") for name in reproduce.KL]
    scores = scores_of(
        bytes=dict(zip(methods, ([744, 0, 444], [744, 0, 684], [744, 0, 740]), strict=True)),
        flat_bytes={method: [344] * 3 for method in methods},
        judge_accuracy=dict(zip(methods, ([1, 0, 0.3], [1, 0, 0.85], [1, 0, 0.9]), strict=True)),
    )
    claims = {claim.name: claim for claim in reproduce.claims(reproduce.AT_600)}
    found = claims["kl_keeps_what_was_asked"].check(scores)
    assert found.passed and found.value == pytest.approx(0.85) and "0.2" in found.detail

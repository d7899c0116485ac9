"""Language models that learn from rewards on text: by a learned reward, of a folder, and what is wrong is one error."""

import json

import numpy as np
import pytest

from rl_jax.core import loop
from rl_jax.language import experiments
from rl_jax.language.checkpoints import load_stories260k
from rl_jax.language.documents import encode, questions
from rl_jax.language.rl_experiments import experiment
from rl_jax.language.scoring import last_token_scalar
from rl_jax.language.training import Trainable
from rl_jax.language.training import default_config as training_config
from tests.language.folders import write_folder
from tests.papers import get_config
from tests.promises.runner import on_devices

SHORT = {
    "num_steps": 2, "loop.log_every": 1, "loop.eval_every": 0, "loop.eval_at_start": False, "tensorboard": False,
    "batch_size": 8, "agent.micro_batches": 2, "agent.max_new_tokens": 8, "data.most": 16,
}


def two_steps(paper, preset, folder, fields):
    config = get_config(paper, preset, SHORT | fields)
    with on_devices(1):
        result = loop.run(experiment(config), config, folder)
    assert result.trained_steps == 2
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.slow
@pytest.mark.parametrize("paper, preset", [
    ("grpo", "qwen2.5-0.5b/gsm8k"), ("grpo", "llama-3-8b/gsm8k"), ("ppo_rlhf", "qwen2.5-0.5b/gsm8k"),
    ("ppo_rlhf", "llama-3-8b/gsm8k"),
])
def test_a_model_of_a_folder_takes_two_steps(paper, preset, tmp_path):
    """In bfloat16, by all parameters or adapters, in micro-batches: all as at its true size, but for the sizes."""
    model = write_folder(tmp_path / "folder", "qwen2" if "qwen" in preset else "llama3")
    config = get_config(paper, preset)
    assert config.agent.dtype == "bfloat16" and (config.agent.lora_rank > 0) == ("llama" in preset)
    fields = {"model.name": str(model), "data.longest": 40, "reward.workers": 1, "agent.updates_per_epoch": 1}
    line = two_steps(paper, preset, tmp_path / "run", fields)
    assert np.isfinite(line["policy/grad_norm"]) and line["policy/ratio_distance"] == 0.0


@pytest.mark.slow
def test_a_learned_reward_teaches_a_story_model(tmp_path):
    """A reward model of two updates, which its run leaves in its folder, and PPO by it."""
    told = get_config("reward_model", "tiny", {"num_steps": 2, "loop.eval_every": 0, "tensorboard": False})
    judge = experiments.reward_model_experiment(told)
    with on_devices(1):
        result = loop.run(judge, told, tmp_path / "reward")
    judge.finish(result, tmp_path / "reward")
    fields = {"reward.model": str(tmp_path / "reward")}
    line = two_steps("ppo_rlhf", "rlhf/stories260k", tmp_path / "run", fields)
    assert np.isfinite(line["reward/mean"]) and line["reward/mean"] != 0.0 and line["critic/grad_norm"] > 0.0


def test_a_reward_model_is_read_as_it_was_left(tmp_path):
    """Rewards of rows that it read in training are those of the tokens of samples, by the file of its head."""
    model, folder = load_stories260k(), tmp_path / experiments.MODEL
    experiments.checkpoints.save_folder(folder, model)
    head = np.random.default_rng(0).normal(size=model.config.width).astype(np.float32)
    np.savez(folder / experiments.HEAD, head=head)
    found = experiments.load_reward(str(tmp_path), model, "float32")
    document = encode(model, ({"role": "user", "content": "Tell me a story."},), "Once upon a time.")
    rows = experiments.pad([document], 40)
    hidden = Trainable(model.config, training_config()).hidden(model.params, rows)
    said = found.rewards(found.params, rows.tokens, np.array([len(document.tokens)]))
    np.testing.assert_allclose(said, last_token_scalar(hidden, rows.segments, head), rtol=1e-3, atol=1e-3)
    np.savez(folder / experiments.HEAD, head=head[1:])
    with pytest.raises(ValueError, match="head.npz is no head of the decoder beside it, of 64 numbers"):
        experiments.load_reward(str(tmp_path), model, "float32")
    letters = model._replace(tokenizer=model.tokenizer.__class__(_fewer(model.tokenizer.backend), eos=2, pad=0))
    np.savez(folder / experiments.HEAD, head=head)
    with pytest.raises(ValueError, match="has other tokens than"):
        experiments.load_reward(str(tmp_path), letters, "float32")


def _fewer(backend):
    other = backend.from_str(backend.to_str())
    other.add_tokens(["another"])
    return other


def test_prompts_of_a_set_become_questions():
    model, records = load_stories260k(), experiments.records.load("gsm8k").records[:40]
    found = questions(model, records, "gsm8k", 300, 5)
    assert len(found.rows) == 5 and found.tokens.shape[1] == found.lengths.max() <= 300
    by_answer = {record.answer: record for record in records}
    for tokens, length, row in zip(found.tokens, found.lengths, found.rows, strict=True):
        record = by_answer[row["answer"]]
        assert row["source"] == "gsm8k"
        whole = encode(model, record.prompt, record.answer)
        np.testing.assert_array_equal(tokens[:length], whole.tokens[:length])
        assert not np.any(whole.mask[:length]) and whole.mask[length] == 1.0


@pytest.mark.parametrize("paper, preset, fields, message", [
    ("grpo", "qwen2.5-0.5b/gsm8k", {}, "config.model.name is empty: give the model's folder, --config.model.name="),
    ("ppo_rlhf", "rlhf/stories260k", {}, "config.data.name=hh_harmless holds pairs, which have no answer to check"),
    ("ppo_rlhf", "rlhf/stories260k", {"reward.model": "nowhere"}, "nowhere/model/head.npz: no such file: config.rew"),
])
def test_settings_that_cannot_work_are_named(paper, preset, fields, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        experiment(get_config(paper, preset, {"data.most": 8} | fields))

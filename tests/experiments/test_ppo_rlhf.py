"""PPO of language models: what its presets are, beside those of GRPO, and settings that cannot work."""

import jax
import pytest

from configs import grpo, ppo_rlhf
from rl_jax.core.config import flat
from rl_jax.data.text import records
from rl_jax.language.rl_experiments import experiment
from rl_jax.language.rl_presets import MODELS


def differences(one, other):
    one, other = flat(one), flat(other)
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} - {"preset"}


def test_the_arms_differ_in_what_they_say():
    quick = ppo_rlhf.get_config()
    assert differences(quick, ppo_rlhf.get_config("ppo")) == set()
    assert differences(quick, ppo_rlhf.get_config("adaptive")) == {
        "agent.kl_control", "agent.kl_target", "agent.critic_warmup"
    }
    without = ppo_rlhf.get_config("reinforce_pp")
    critic = {f"agent.{name}" for name in (
        "critic_learning_rate", "critic_warmup", "critic_bounded", "value_clip", "discount", "gae_lambda"
    )}
    assert differences(quick, without) == critic | {"agent.advantages", "agent.kl_coefficient"}
    assert without.agent.samples == 1 and grpo.get_config("remax").agent.samples == 8


@pytest.mark.parametrize("model", MODELS)
def test_models_learn_from_rules_and_from_a_learned_reward(model):
    by_rule, learned = (ppo_rlhf.get_config(preset) for preset in (f"{model}/gsm8k", f"rlhf/{model}"))
    assert differences(by_rule, learned) == {"data.name"} and learned.data.name == "hh_harmless"
    assert by_rule.agent.critic_learning_rate == pytest.approx(10 * by_rule.agent.learning_rate)
    config = grpo.get_config(f"{model}/gsm8k")
    assert config.batch_size % (config.agent.samples * config.agent.updates_per_epoch) == 0
    train, _ = records.split(records.load("gsm8k").records, by_rule.data.held_out)
    for own in (config, by_rule):
        assert own.batch_size // own.agent.samples < 0.9 * len(train), "some prompts are too long"
        assert own.batch_size % (own.agent.updates_per_epoch * own.agent.micro_batches) == 0


def test_a_run_has_a_critic_of_its_own():
    config = ppo_rlhf.get_config("tiny-adaptive")
    program = experiment(config).program(config)
    state = jax.eval_shape(program.init, jax.random.key(0), program.resident)
    assert state.params.keys() == state.opt_state.keys() == {"policy", "critic"}
    decoder, policy = (jax.tree.map(lambda x: x.shape, state.params[name]) for name in ("critic", "policy"))
    assert decoder == {"decoder": policy, "head": (config.decoder.width,)}
    assert state.extra.keys() == {"kl_coefficient"}
    program.feed.close()


@pytest.mark.parametrize("fields, message", [
    ({"agent.kl_control": "adaptve"}, "unknown config.agent.kl_control 'adaptve': did you mean adaptive"),
    ({"agent.advantages": "critics"}, "unknown config.agent.advantages 'critics': did you mean critic"),
    ({"agent.refill": 1}, "agent.samples=1: groups of responses to a prompt are compared"),
])
def test_settings_that_cannot_work_are_named(fields, message):
    config = ppo_rlhf.get_config("tiny")
    config.update_from_flattened_dict(fields)
    with pytest.raises(ValueError, match=message):
        experiment(config).program(config)

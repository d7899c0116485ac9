"""The configuration: values that cannot work, names that do not exist."""

import pytest

from rl_jax.core.config import check_core_config, core_config, from_preset, unknown


def test_the_defaults_work():
    check_core_config(core_config())


@pytest.mark.parametrize("field, value, message", [
    ("num_steps", -1, "config.num_steps=-1: must be at least 0"),
    ("num_seeds", 0, "config.num_seeds=0: must be at least 1"),
    ("loop.chunk", 0, "config.loop.chunk=0"),
    ("loop.log_every", 0, "config.loop.log_every=0"),
    ("checkpoint.keep", 0, "config.checkpoint.keep=0"),
    ("seed", -3, "config.seed=-3"),
    ("loop.on_nan", "ignore", "must be one of abort, skip"),
    ("loop.seed_axis", "pmap", "must be one of auto, vmap, map"),
    ("mesh.seed", 2, "config.num_seeds=1 does not divide over config.mesh.seed=2"),
])
def test_a_value_that_cannot_work_is_named(field, value, message):
    config = core_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        check_core_config(config)


def test_near_names_come_first():
    assert unknown("preset", "hoper", ["walker", "hopper"]).startswith("unknown preset 'hoper': did you mean hopper?")
    assert unknown("preset", "zzz", ["hopper"]) == "unknown preset 'zzz': known are hopper"


def test_a_preset_carries_its_names():
    config = from_preset("paper", {"quick": core_config}, "quick")
    assert (config.paper, config.preset) == ("paper", "quick")
    with pytest.raises(ValueError, match="unknown preset 'quik': did you mean quick"):
        from_preset("paper", {"quick": core_config}, "quik")

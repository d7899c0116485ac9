"""Three updates of ICVF against what the authors' own code gave (PROVENANCE.md)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.agents.icvf import Drawn, default_config, icvf
from tests.golden.given import QUICK

with np.load(Path(__file__).parent / "authors_icvf.npz", allow_pickle=False) as file:
    GOLDEN = dict(file)


def networks(prefix):
    """Our names are theirs below "value"; there is nothing to an encoder of vectors."""
    arrays = {name.removeprefix(prefix): jnp.asarray(x) for name, x in GOLDEN.items() if name.startswith(prefix)}
    return {"params": unflatten_dict(arrays, sep="/")}


def test_updates_are_the_authors():
    config = default_config()
    config.update({"encoder": "none", "hidden_dims": (16, 16), "learning_rate": 1e-2, "discount": 0.9, "tau": 0.05,
                   "expectile": 0.7})
    agent = icvf(config)
    batches = [Drawn(*rows) for rows in zip(GOLDEN["frames"], GOLDEN["reached"], strict=True)]
    state = agent.init(jax.random.key(0), batches[0])
    fresh = flatten_dict(state.params["value"], sep="/")
    assert {name: x.shape for name, x in fresh.items()} == {
        name: x.shape for name, x in flatten_dict(networks("params/"), sep="/").items()}
    state = state.replace(params=state.params | {"value": networks("params/")},
                          target_params=state.target_params | {"value": networks("target_params/")})
    update, found = jax.jit(agent.update, compiler_options=QUICK), []
    for batch in batches:
        state, metrics = update(state, batch)
        found.append((metrics["icvf/loss"], metrics["icvf/accepted"]))
    np.testing.assert_allclose(found, np.stack([GOLDEN["losses"], GOLDEN["accepted"]], 1), rtol=2e-5)
    for prefix, params in (("after/", state.params), ("target_after/", state.target_params)):
        expected = flatten_dict(networks(prefix), sep="/")
        for name, x in flatten_dict(params["value"], sep="/").items():
            np.testing.assert_allclose(x, expected[name], rtol=1e-4, atol=2e-5, err_msg=prefix + name)

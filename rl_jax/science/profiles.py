"""A denoising variational autoencoder of profiles: gene expression, methylation, features of a protein.

Born et al. 2021, iScience 24:102269, section Omics VAE: inputs are masked and have noise added, the output is the whole
input; its code is where a decoder of molecules starts.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.core.program import Key, Metrics, PyTree
from rl_jax.networks.mlp import MLP
from rl_jax.science.molecule_vae import divergence_from_normal


class ProfileVAE(nn.Module):
    """Profiles [B, P] of zero mean and unit deviation -> mean and standard deviation of latents [B, L], and back."""

    size: int
    features: Sequence[int] = (256, 128)
    latent: int = 32

    def setup(self):
        self.inwards = MLP((*self.features, 2 * self.latent))
        self.outwards = MLP((*reversed(self.features), self.size))

    def encode(self, profiles: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean, log_variance = jnp.split(self.inwards(profiles), 2, -1)
        return mean, jnp.exp(0.5 * jnp.clip(log_variance, -20.0, 10.0))

    def decode(self, latents: jax.Array) -> jax.Array:
        return self.outwards(latents)

    def __call__(self, profiles: jax.Array) -> jax.Array:
        return self.decode(self.encode(profiles)[0])


def profile_loss(
    module: ProfileVAE, params: PyTree, profiles: jax.Array, key: Key, *, kl_weight: jax.Array | float, masked: float,
    noise: float,
) -> tuple[jax.Array, Metrics]:
    """The squared error of the whole profile, summed, + kl_weight * KL(q(z|x) || N(0, 1)); means over B.

    Args:
      profiles: [B, P].
      masked: the share of the inputs that are set to 0.
      noise: the standard deviation of what is added to the others.
    """
    mask_key, noise_key, latent_key = jax.random.split(key, 3)
    kept = jax.random.uniform(mask_key, profiles.shape) >= masked
    spoilt = jnp.where(kept, profiles + noise * jax.random.normal(noise_key, profiles.shape), 0.0)
    mean, deviation = module.apply({"params": params}, spoilt, method="encode")
    latents = mean + deviation * jax.random.normal(latent_key, mean.shape)
    error = jnp.mean(jnp.sum(jnp.square(module.apply({"params": params}, latents, method="decode") - profiles), -1))
    divergence = jnp.mean(divergence_from_normal(mean, deviation))
    loss = error + kl_weight * divergence
    return loss, {"model/loss": loss, "model/error": error, "model/kl": divergence}

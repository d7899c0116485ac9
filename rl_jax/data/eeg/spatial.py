"""Spatial filters and a linear classifier of trials, as pure functions: CSP one class against the rest, shrinkage LDA.

Ramoser, Mueller-Gerking and Pfurtscheller 2000, "Optimal spatial filtering of single trial EEG during imagined hand
movement", IEEE Transactions on Rehabilitation Engineering 8(4); one-versus-rest for several classes: Dornhege et al.
2004, IEEE Transactions on Biomedical Engineering 51(6). Weights say which trials count: those of the test weigh 0.
"""

import jax
import jax.numpy as jnp


def covariances(signals: jax.Array) -> jax.Array:
    """Covariances over time, each divided by its trace, [..., C, C], of signals [..., T, C]."""
    centred = signals - jnp.mean(signals, -2, keepdims=True)
    products = jnp.einsum("...tc,...td->...cd", centred, centred)
    return products / jnp.trace(products, axis1=-2, axis2=-1)[..., None, None]


def shrunk(covariance: jax.Array, shrinkage: float) -> jax.Array:
    """(1 - s) S + s tr(S)/C I, [..., C, C]: of full rank, also where the average reference has taken one away."""
    size = covariance.shape[-1]
    level = jnp.trace(covariance, axis1=-2, axis2=-1)[..., None, None] / size
    return (1.0 - shrinkage) * covariance + shrinkage * level * jnp.eye(size)


def generalised_eigh(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves A w = lambda B w for a symmetric A and a positive definite B, both [C, C].

    Returns:
      (lambda [C], increasing, w [C, C], a column each with w^T B w = 1), as `scipy.linalg.eigh(a, b)`.
    """
    root = jnp.linalg.cholesky(b)
    half = jax.scipy.linalg.solve_triangular(root, a, lower=True)
    white = jax.scipy.linalg.solve_triangular(root, half.T, lower=True)  # L^-1 A L^-T
    values, vectors = jnp.linalg.eigh(white)
    return values, jax.scipy.linalg.solve_triangular(root.T, vectors, lower=False)


def csp(
    covariance: jax.Array, labels: jax.Array, weights: jax.Array, num_classes: int, pairs: int, shrinkage: float
) -> jax.Array:
    """One-versus-rest CSP: for each class c the solutions of C_c w = lambda (C_c + C_r) w at both ends of lambda.

    C_c is the mean covariance of class c and C_r that of all other trials, both shrunk.

    Args:
      covariance: [N, C, C], as `covariances` gives them.
      labels: int [N].
      weights: [N], 0 for trials that must not be seen.
      pairs: m, solutions at each end.

    Returns:
      filters [num_classes * 2 m, C], the largest lambda of a class first.
    """

    def mean(chosen: jax.Array) -> jax.Array:
        share = weights * chosen
        return shrunk(jnp.einsum("n,ncd->cd", share / jnp.maximum(jnp.sum(share), 1e-9), covariance), shrinkage)

    def of_class(number: jax.Array) -> jax.Array:
        own, rest = mean(labels == number), mean(labels != number)
        _, filters = generalised_eigh(own, own + rest)
        ends = jnp.concatenate([filters[:, ::-1][:, :pairs], filters[:, :pairs]], 1)
        return ends.T

    return jnp.concatenate([of_class(number) for number in range(num_classes)])


def patterns(filters: jax.Array, covariance: jax.Array) -> jax.Array:
    """How each component alone shows at the electrodes, S w / w^T S w, [K, C].

    Source: Haufe et al. 2014, "On the interpretation of weight vectors of linear models", NeuroImage 87, equation 6,
    for one component at a time: those of different classes overlap.
    """
    spread = filters @ covariance
    return spread / jnp.sum(spread * filters, 1, keepdims=True)


def lda_scores(
    features: jax.Array, labels: jax.Array, weights: jax.Array, num_classes: int, shrinkage: float
) -> jax.Array:
    """Linear discriminant scores [N, num_classes] of all rows, fitted on those that weigh more than 0.

    mu_c^T S^-1 x - mu_c^T S^-1 mu_c / 2 + log p_c with the shrunk covariance S within classes.

    Args:
      features: [N, F].
    """
    of_class = jax.nn.one_hot(labels, num_classes) * weights[:, None]
    counts = jnp.sum(of_class, 0)
    means = of_class.T @ features / counts[:, None]
    within = (features - means[labels]) * jnp.sqrt(weights)[:, None]
    inverse_means = jnp.linalg.solve(shrunk(within.T @ within / jnp.sum(weights), shrinkage), means.T)  # [F, K]
    offsets = jnp.log(counts / jnp.sum(counts)) - 0.5 * jnp.sum(means * inverse_means.T, 1)
    return features @ inverse_means + offsets


def nearest_labels(features: jax.Array, labels: jax.Array, weights: jax.Array) -> jax.Array:
    """The label [N] of each row's nearest other row [N, F] that weighs more than 0, by Euclidean distance."""
    squares = jnp.sum(features**2, 1)
    distances = squares[:, None] - 2.0 * features @ features.T + squares
    forbidden = (weights <= 0.0)[None, :] | jnp.eye(len(features), dtype=bool)
    return labels[jnp.argmin(jnp.where(forbidden, jnp.inf, distances), 1)]

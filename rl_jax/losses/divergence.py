"""f-divergences D_f(p || q) = E_q[f(p / q)]: generators, conjugates, and the surrogates that offline RL trains with.

Every generator is convex with f(1) = 0 and, where it is smooth, f'(1) = 0: f*(0) is 0 and the weight at 0 is 1. Papers
often leave out terms linear in t, which shifts y by a constant. With p a policy's visitation and q the data's, "reverse
KL" is KL(p || q), as in Dual RL (Sikchi et al. 2023, arXiv 2302.08560, its table of f-divergences).

Outside its domain a function is +inf, with gradient 0; above float32's largest number it is +inf too. No number becomes
NaN, and NaN stays NaN.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

Function = Callable[[jax.Array], jax.Array]  # elementwise, [...] -> [...]


class Divergence(NamedTuple):
    """One f-divergence; every function is elementwise.

    Attributes:
      generator: f(t), +inf where t lies below 0 unless f is defined there (total variation and Pearson chi2).
      derivative: f'(t), the gradient of the generator; a subgradient at a kink, -inf below the domain.
      conjugate: f*(y) = sup_t t y - f(t), over all t for which f is defined.
      positive_conjugate: f_p*(y) = sup_{t >= 0} t y - f(t): the conjugate when t is a ratio of visitations.
      weight: argmax of positive_conjugate, max(0, f'^-1(y)): the ratio p / q that belongs to y.
      domain: where the conjugate is finite, closed at a finite end if the conjugate is finite there; the domain of
        positive_conjugate goes on to -inf.
    """

    generator: Function
    derivative: Function
    conjugate: Function
    positive_conjugate: Function
    weight: Function
    domain: tuple[float, float]


def _except(y: jax.Array, outside: jax.Array, function: Function) -> jax.Array:
    """function(y), but +inf without gradient where `outside`; 0 lies inside every conjugate's domain."""
    # Both branches of a where are differentiated: the unused one has to be finite.
    return jnp.where(outside, jnp.inf, function(jnp.where(outside, 0.0, y)))


def _for_positive(generator: Function, derivative: Function) -> tuple[Function, Function]:
    """Extends a generator and its derivative, given for t >= 0, to every t."""

    def extended_derivative(t: jax.Array) -> jax.Array:
        return jnp.where(t < 0, -jnp.inf, derivative(jnp.where(t < 0, 1.0, t)))

    @jax.custom_jvp
    def extended_generator(t: jax.Array) -> jax.Array:
        return jnp.where(t < 0, jnp.inf, generator(jnp.maximum(t, 0.0)))

    @extended_generator.defjvp
    def _gradient(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        # By hand: the gradient of xlogy(t, t) is NaN at 0.
        (t,), (tangent,) = primals, tangents
        return extended_generator(t), jnp.where(t < 0, 0.0, extended_derivative(t)) * tangent

    return extended_generator, extended_derivative


def _below(high: float, function: Function, *, closed: bool = False) -> Function:
    """`function` up to `high`, which belongs to its domain if that is closed, and +inf beyond."""
    return lambda y: _except(y, y > high if closed else y >= high, function)


def _of_positive_ratios(
    generator: Function, derivative: Function, conjugate: Function, weight: Function, high: float = jnp.inf,
    closed: bool = False,
) -> Divergence:
    """A divergence whose f'^-1 is never negative, so that both conjugates are one."""
    generator, derivative = _for_positive(generator, derivative)
    conjugate = _below(high, conjugate, closed=closed)
    weight = _below(high, weight)
    return Divergence(generator, derivative, conjugate, conjugate, weight, (-jnp.inf, high))


def _pearson_chi2() -> Divergence:
    def conjugate(y: jax.Array) -> jax.Array:
        return y + jnp.square(y) / 4

    return Divergence(
        generator=lambda t: jnp.square(t - 1),
        derivative=lambda t: 2 * (t - 1),
        conjugate=conjugate,
        # Below -2 the best t would be negative: t = 0 has -f(0) = -1.
        positive_conjugate=lambda y: conjugate(jnp.maximum(y, -2.0)),
        weight=lambda y: jnp.maximum(1 + y / 2, 0.0),
        domain=(-jnp.inf, jnp.inf),
    )


def _total_variation() -> Divergence:
    return Divergence(
        generator=lambda t: jnp.abs(t - 1) / 2,
        derivative=lambda t: jnp.sign(t - 1) / 2,
        conjugate=lambda y: _except(y, jnp.abs(y) > 0.5, lambda y: y),
        positive_conjugate=lambda y: _except(y, y > 0.5, lambda y: jnp.maximum(y, -0.5)),
        # A subgradient: every t >= 1 is a maximiser at y = 1/2, every t in [0, 1] at y = -1/2.
        weight=lambda y: _except(y, y > 0.5, lambda y: jnp.heaviside(y + 0.5, 0.0)),
        domain=(-0.5, 0.5),
    )


REVERSE_KL = _of_positive_ratios(
    generator=lambda t: xlogy(t, t) - t + 1,
    derivative=jnp.log,
    conjugate=jnp.expm1,
    weight=jnp.exp,
)
KL = _of_positive_ratios(
    generator=lambda t: -jnp.log(t) + t - 1,
    derivative=lambda t: 1 - 1 / t,
    conjugate=lambda y: -jnp.log1p(-y),
    weight=lambda y: 1 / (1 - y),
    high=1.0,
)
# Twice the Jensen-Shannon divergence: the generator of the GAN.
JENSEN_SHANNON = _of_positive_ratios(
    generator=lambda t: xlogy(t, 2 * (t / (1 + t))) - jnp.log((1 + t) / 2),
    derivative=lambda t: jnp.log(t) - jnp.log1p(t) + jnp.log(2.0),
    conjugate=lambda y: -jnp.log1p(-jnp.expm1(y)),
    weight=lambda y: jnp.exp(y) / (1 - jnp.expm1(y)),
    high=math.log(2.0),
)
SQUARED_HELLINGER = _of_positive_ratios(
    generator=lambda t: jnp.square(jnp.sqrt(t) - 1),
    derivative=lambda t: 1 - 1 / jnp.sqrt(t),
    conjugate=lambda y: y / (1 - y),
    weight=lambda y: (1 - y) ** -2,
    high=1.0,
)
NEYMAN_CHI2 = _of_positive_ratios(
    generator=lambda t: (t - 1) * ((t - 1) / t),
    derivative=lambda t: 1 - t**-2,
    conjugate=lambda y: 2 - 2 * jnp.sqrt(1 - y),
    weight=lambda y: 1 / jnp.sqrt(1 - y),
    high=1.0,
    closed=True,
)
PEARSON_CHI2 = _pearson_chi2()
TOTAL_VARIATION = _total_variation()

DIVERGENCES = {
    "reverse_kl": REVERSE_KL,
    "kl": KL,
    "jensen_shannon": JENSEN_SHANNON,
    "total_variation": TOTAL_VARIATION,
    "pearson_chi2": PEARSON_CHI2,
    "neyman_chi2": NEYMAN_CHI2,
    "squared_hellinger": SQUARED_HELLINGER,
}


# f_p* as f-DVL trains with it: max(f_p*, 0) where that is finite, so flat below 0 (a weight under 1 counts as 0), and
# continued to all y.


def total_variation_surrogate(y: jax.Array) -> jax.Array:
    """max(y, 0), [...], of y [...]: it goes on linearly beyond 1/2, where f_p* of total variation is infinite."""
    return jnp.maximum(y, 0.0)


def chi2_hinged(y: jax.Array) -> jax.Array:
    """y + y^2 / 4 where y > 0 and 0 elsewhere, [...], of y [...]."""
    y = jnp.maximum(y, 0.0)
    return y + jnp.square(y) / 4


def chi2_coded(y: jax.Array) -> jax.Array:
    """max(y + y^2 / 4, 0), [...], of y [...], as in the authors' code.

    It rises again below y = -4, where the weight is negative.
    """
    return jnp.maximum(y + jnp.square(y) / 4, 0.0)


SURROGATES = {
    "total_variation": total_variation_surrogate,
    "chi2_hinged": chi2_hinged,
    "chi2_coded": chi2_coded,
}

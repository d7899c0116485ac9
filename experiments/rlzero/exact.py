"""The identities of forward-backward representations where they are exact: a maze, D = S, float64."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.program import Evaluation, Key, Metrics, Program, PyTree, TrainState
from rl_jax.losses.forward_backward import imitation_latent, reward_latent, successor_loss, successor_target
from rl_jax.tabular.maze import maze_mdp
from rl_jax.tabular.successor import Chain, backward, forward, occupancy, optimal_values, values_of

MAZE = (
    "...........", ".S..#......", "....#......", "....#......", ".####.####.", "...........", ".......#...",
    "..###..#...", "....#..#.G.", "....#..#...", "....#......",
)
PROBLEMS = 10  # rewards, and experts
OPTIMALITY = Metric("eval/optimality_gap", "largest loss of z_r against the optimum", "lower")
IMITATION = Metric("eval/imitation_lead", "least lead of z_imit over its expert")
GRADIENT = Metric("eval/gradient", "largest gradient of the population loss", "lower")


def exact_experiment(config: ConfigDict) -> Experiment:
    """Outcomes [S, 1 or PROBLEMS]: "optimality_gap", the largest V* - V of z_r, over V*'s range; "imitation_lead", what
    z_imit earns of rho^E / rho beyond its expert, as a share; "gradient", of the population loss in F and B, over that
    of its linear term."""
    chain = Chain(np.asarray(maze_mdp(MAZE)[0].transitions), config.agent.discount)

    def judged(seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        with jax.enable_x64(True):
            return {
                "optimality_gap": np.array([optimality_gap(chain, rng) for _ in range(PROBLEMS)]),
                "imitation_lead": np.array([imitation_lead(chain, rng) for _ in range(PROBLEMS)]),
                "gradient": np.array([population_gradient(chain, rng)]),
            }

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del state, resident, key
        found = [judged(seed) for seed in range(config.seed, config.seed + config.num_seeds)]
        return Evaluation(outcomes={name: np.stack([one[name] for one in found]) for name in found[0]})

    def init(key: Key, resident: PyTree) -> TrainState:
        return TrainState.create({"none": jnp.zeros(1)}, {})

    def step(state: TrainState, resident: PyTree, batch: None, key: Key) -> tuple[TrainState, Metrics]:
        return state, {}

    return Experiment(lambda config: Program(init, step, evaluate), {"maze": "\n".join(MAZE)}, OPTIMALITY)


def optimality_gap(chain: Chain, rng: np.random.Generator) -> float:
    """Of a reward drawn at random: z_r = E_rho[r B] gives an optimal policy."""
    rewards, visits = rng.normal(size=len(chain.transitions)), chain.visits
    samples = backward(chain) * visits[:, None] * len(visits)  # so that a mean over states is an expectation over rho
    _, policy = forward(chain, np.asarray(reward_latent(jnp.asarray(rewards), jnp.asarray(samples))))
    best = optimal_values(chain, rewards)
    return float(np.max(np.abs(best - values_of(chain, policy, rewards))) / np.ptp(best))


def imitation_lead(chain: Chain, rng: np.random.Generator) -> float:
    """Of an expert drawn at random: z_imit = E_expert[B] earns at least as much of rho^E / rho as the expert."""
    count, actions = chain.transitions.shape
    expert = rng.dirichlet(np.full(actions, 0.3), count)
    visits = occupancy(chain, expert, start=0)
    latent = np.asarray(imitation_latent(jnp.asarray(backward(chain)), jnp.asarray(visits)))
    _, policy = forward(chain, latent)
    ratio = visits / chain.visits
    own, theirs = (values_of(chain, one, ratio)[0] for one in (policy, expert))
    return float(own / theirs - 1.0)


def population_gradient(chain: Chain, rng: np.random.Generator) -> float:
    """The largest entry of the gradient of the population's L_FB in F and B at the exact representation, over the
    largest of its linear term; the population's loss is the mean over all pairs of transitions, as batches of two."""
    latent = rng.normal(size=len(chain.transitions))
    f, policy = forward(chain, latent)
    count, actions = chain.transitions.shape
    b, after = jnp.asarray(backward(chain)), jnp.asarray(chain.transitions.ravel())
    f, best = jnp.asarray(f.reshape(count * actions, count)), after * actions + jnp.asarray(policy)[after]

    def population(tables: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Batches {i, j} with all j at once: the quadratic term is of i != j by position, so it counts every pair."""
        forward_table, backward_table = tables

        def batch(i: jax.Array, j: jax.Array) -> jax.Array:
            pair = jnp.stack([i, j])
            target = successor_target(f[best[pair]][None], b[after[pair]], jnp.full(2, chain.discount))
            return successor_loss(forward_table[pair][None], backward_table[after[pair]], target)[0]

        rows = jnp.arange(count * actions)
        return jnp.mean(jax.lax.map(lambda i: jnp.mean(jax.vmap(lambda j: batch(i, j))(rows)), rows))

    gradients = jax.jit(jax.grad(population))((f, b))
    linear = 1.0 / (count * actions) * float(jnp.max(b))
    return max(float(jnp.max(jnp.abs(gradient))) for gradient in gradients) / linear

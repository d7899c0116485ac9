"""What a policy's repairs are worth: sampled as it learns, always by the similarity, whatever it is trained by."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.swe_rl.execution import pass_rate
from rl_jax.core.fused import default_seed_axis, over_runs
from rl_jax.core.mesh import gather
from rl_jax.core.program import Evaluate, Evaluation, Key, PyTree, TrainState
from rl_jax.language import patches, rewards
from rl_jax.language.decoder import DecoderConfig
from rl_jax.language.questions import Questions, Scores, Words, texts_of
from rl_jax.language.sampler import Samples, Sampling, generate

SECONDS = 1.0  # of the processor, in which a program's test cases end

Render = Callable[[Mapping[str, Any], str], str]


class Rendering:
    """Scores of what responses stand for: `render` makes the response that `scorer` reads."""

    def __init__(self, scorer: Scores, render: Render):
        self._scorer, self._render = scorer, render

    def scores(
        self, rows: Sequence[Mapping[str, Any]], responses: Sequence[str], progress: float
    ) -> list[rewards.Score]:
        texts = [self._render(row, text) for row, text in zip(rows, responses, strict=True)]
        return self._scorer.scores(rows, texts, progress)

    def close(self) -> None:
        self._scorer.close()


def judge(
    decoder: DecoderConfig, params: Callable[[PyTree, PyTree], PyTree], words: Words, parts: Mapping[str, Questions],
    scorer: Scores, render: Render, sampling: Sampling, samples: int, prompts: int, dtype: Any, execute: bool,
) -> Evaluate:
    """Outcomes [S, E] by the name of a part before their own, means over `samples` responses to each question:
    `score`, `invalid` (responses of -1), `exact`, and `removed_precision` and `added_precision`, 0 where invalid.

    Args:
      params: (trained, pretrained) -> the decoder's parameters.
      parts: questions by what their outcomes' names begin with, "" or such as "quixbugs_".
      scorer: of the similarity, reads what `render` makes of a response.
      prompts: whose responses are sampled at a time.
      execute: whether repaired programs with test cases are run: `passed`, the share of cases, and `solved`, all of
        them. A response that is no patch leaves the program as it was.
    """
    known: dict[tuple[str, str], float] = {}

    @jax.jit
    def sampled(trained: PyTree, model: PyTree, tokens: jax.Array, lengths: jax.Array, ids: jax.Array) -> PyTree:
        def one(trained: PyTree) -> tuple[Samples, jax.Array]:
            free = jnp.full((prompts * samples, sampling.max_new_tokens), -1, jnp.int32)
            own = params(trained, model)
            return generate(
                decoder, own, tokens[ids], lengths[ids], samples, sampling, jax.random.key(0), ids, free, dtype
            )

        return over_runs(one, default_seed_axis())(trained)

    def passed(row: Mapping[str, Any], response: str) -> float:
        ((path, program),) = row["files"].items()
        try:
            program = patches.applied(row["files"], patches.parse(response)).get(path, program)
        except patches.PatchError:
            pass
        if (row["name"], program) not in known:
            known[row["name"], program] = pass_rate(program, row["name"], row["cases"], seconds=SECONDS)
        return known[row["name"], program]

    def of_part(trained: PyTree, model: PyTree, part: Questions) -> dict[str, np.ndarray]:
        size, found = len(part.rows), []
        tokens, lengths = (jnp.asarray(x, jnp.int32) for x in (part.tokens, part.lengths))
        for start in range(0, size, prompts):
            ids = np.arange(start, start + prompts, dtype=np.int32) % size
            of_runs, finite = jax.device_get(gather(sampled(trained, model, tokens, lengths, ids)))
            if not np.all(finite):
                raise FloatingPointError("the policy's logits are not finite while it is judged: it has diverged")
            rows = [part.rows[number] for number in np.repeat(ids, samples)]
            found.append([
                numbers(rows, texts_of(jax.tree.map(lambda x, run=run: x[run], of_runs), words))
                for run in range(len(of_runs.tokens))
            ])
        names = found[0][0]
        by_name = {name: np.concatenate([[run[name] for run in group] for group in found], 1) for name in names}
        return {name: x.reshape(len(x), -1, samples).mean(-1)[:, :size] for name, x in by_name.items()}

    def numbers(rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> dict[str, list[float]]:
        responses = [render(row, text) for row, text in zip(rows, texts, strict=True)]
        scores = scorer.scores(rows, responses, 1.0)
        parts = "invalid", "exact", "removed_precision", "added_precision"
        found = {"score": [x.score for x in scores]}
        found |= {name: [x.parts.get(name, 0.0) for x in scores] for name in parts}
        if execute and "cases" in rows[0]:
            found["passed"] = [passed(row, response) for row, response in zip(rows, responses, strict=True)]
            found["solved"] = [float(x == 1.0) for x in found["passed"]]
        return found

    def evaluate(state: TrainState, resident: PyTree, key: Key) -> Evaluation:
        del key
        found = {}
        for begin, part in parts.items():
            of = of_part(state.params["policy"], resident["model"], part)
            found |= {f"{begin}{name}": values for name, values in of.items()}
        return Evaluation(outcomes=found)

    return evaluate

"""A policy that repairs Python functions by search/replace blocks: the edit policy of a CPU, or a language model."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from experiments.swe_rl import bugs
from experiments.swe_rl.edits import edits
from experiments.swe_rl.judge import Render, Rendering, judge
from experiments.swe_rl.language import LONGEST, Language, language, source_of
from rl_jax.core.config import unknown
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.files import write_atomically
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run
from rl_jax.core.program import Evaluate, Program, PyTree
from rl_jax.data.cache import files_checksum
from rl_jax.language import patches
from rl_jax.language.decoder import DecoderConfig, init_decoder
from rl_jax.language.documents import encode_prompt
from rl_jax.language.experiments import leaves_model, load_model
from rl_jax.language.grpo import grpo_program
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.questions import Questions, Scores, Words, texts_of
from rl_jax.language.reward_pool import Scorer, scorer_of
from rl_jax.language.rows import Builder, Document, Rows, pad
from rl_jax.language.sampler import Sampling, sample
from rl_jax.language.sft import sft_program
from rl_jax.language.training import DTYPES, Trainable
from rl_jax.networks import model_file

START = Path(__file__).parent / "start.npz"
TASKS = ("edits", "sft", "pretrain", "text")
EDITS_OF_A_FUNCTION = 16  # that the start is made from
REWARD = Metric("eval/score", "reward, held out")
ASKED = """You repair Python programs. First think between <think> and </think>. Then write, between <solution> and \
</solution>, one or more blocks of this form:
```python
### path of the file
<<<<<<< SEARCH
whole lines that stand in the file
=======
the lines that are to stand there
>>>>>>> REPLACE
```
Each tag comes once. Copy the lines to search for exactly, with their indentation."""


class Task(NamedTuple):
    """What is asked, and how a response is read.

    Attributes:
      render: (row, response) -> the response of the full contract.
      parts: what is judged, as `judge` takes it.
    """

    shape: DecoderConfig
    params: PyTree
    words: Words
    render: Render
    train: Questions
    parts: Mapping[str, Questions]


def experiment(config: ConfigDict) -> Experiment:
    """What a configuration of configs/swe_rl.py says.

    Raises:
      FileNotFoundError or ValueError: a field names what does not exist, or a row of the data is damaged.
    """
    if config.task not in TASKS:
        raise ValueError(unknown("config.task", config.task, TASKS))
    if config.task == "text":
        return text_experiment(config)
    told, spoken, inputs = edit_task(config)
    by_search = config.task == "edits"
    data = None if by_search else supervised(config, told, spoken)

    def program(config: ConfigDict) -> Program:
        if by_search:
            return rewarded(config, told)
        held_out = pad([*documents(told, spoken, told.parts[""].rows)], config.data.longest + LONGEST)
        made = sft_program(config, told.shape, told.params, data, held_out)
        return made._replace(evaluate=judged(config, told, Scorer("patch", options(config, exact=False))))

    return Experiment(program, inputs, REWARD, functools.partial(leaves_repairs, config, told))


def edit_task(config: ConfigDict) -> tuple[Task, Language, dict[str, Any]]:
    """The edit policy from its start, with the functions and those of QuixBugs' programs that it can read."""
    train, held_out = bugs.functions()
    spoken = language(map(source_of, train))
    shape = DecoderConfig(vocab_size=len(spoken.vocabulary), **config.decoder)
    init = functools.partial(init_decoder, shape)
    inputs = {"functions": files_checksum(bugs.FUNCTIONS), "quixbugs": files_checksum(bugs.QUIXBUGS)}
    if config.task == "pretrain":
        params = init(jax.random.key(config.decoder_seed))
    else:
        path = Path(config.start or START)
        params = jax.tree.map(jnp.asarray, model_file.load_model(path, "start", "edits", init))
        inputs["start"] = files_checksum(path)
    longest = config.data.longest
    train, held_out = ([row for row in part if spoken.reads(source_of(row), longest)] for part in (train, held_out))
    if not train or not held_out:
        raise ValueError(f"no function has at most config.data.longest={longest} tokens in one of the parts: raise it")
    short = [row for row in bugs.quixbugs() if spoken.reads(source_of(row))]
    parts = {"": spoken.questions(held_out), "quixbugs_": spoken.questions(short)}
    return Task(shape, params, spoken.words, spoken.rendered, spoken.questions(train), parts), spoken, inputs


def text_experiment(config: ConfigDict) -> Experiment:
    """A language model that reads issues and files, and writes blocks; leaves the folder `model`."""
    model = load_model(config.model.name)
    model = model._replace(params=jax.device_get(model.params))
    if config.data.name:
        rows = bugs.issues(config.data.name)
        count = round(len(rows) * config.data.held_out)
        if not 0 < count < len(rows):
            raise ValueError(f"config.data.held_out={config.data.held_out} of {len(rows)} issues leaves one part empty")
        train, parts = rows[:-count], {"": rows[-count:]}
    else:
        train, held_out = bugs.functions()
        parts = {"": held_out, "quixbugs_": bugs.quixbugs()}
    asked = {name: as_text(config, model, part) for name, part in parts.items()}
    words = Words(model.tokenizer.decode, (model.tokenizer.eos,))
    told = Task(
        model.config, model.params, words, lambda row, text: text, as_text(config, model, train),
        {name: part for name, part in asked.items() if part.rows},
    )
    if not told.train.rows or "" not in told.parts:
        raise ValueError(
            f"no prompt has at most config.data.longest={config.data.longest} tokens in one of the parts: raise it"
        )
    inputs = {"model": config.model.name, "data": config.data.name or files_checksum(bugs.FUNCTIONS)}
    return Experiment(lambda config: rewarded(config, told), inputs, REWARD, leaves_model(config, model))


def as_text(config: ConfigDict, model: Pretrained, rows: Sequence[Mapping[str, Any]]) -> Questions:
    """Questions of the rows whose prompts are short enough: the issue, and every file whole."""
    found = []
    for row in rows:
        files = "\n".join(f"### {path}\n```python\n{text}```\n" for path, text in row["files"].items())
        messages = ({"role": "system", "content": ASKED}, {"role": "user", "content": f"{row['issue']}\n\n{files}"})
        found.append(encode_prompt(model, messages))
    kept = [number for number, tokens in enumerate(found) if len(tokens) <= config.data.longest]
    logging.info("%d of %d rows have prompts of at most %d tokens", len(kept), len(rows), config.data.longest)
    tokens = np.zeros((len(kept), config.data.longest), np.int32)
    for row, number in zip(tokens, kept, strict=True):
        row[: len(found[number])] = found[number]
    lengths = np.array([len(found[number]) for number in kept], np.int32)
    return Questions(tokens, lengths, [rows[number] for number in kept])


# Programs


def rewarded(config: ConfigDict, told: Task) -> Program:
    """GRPO from the reward of the configuration; judged by the similarity."""
    of_judge = scorer_of(config.reward, "patch", options(config, exact=False))
    scorer = Rendering(scorer_of(config.reward, "patch", options(config, config.reward.exact)), told.render)
    made = grpo_program(config, told.shape, told.params, told.words, told.train, told.parts[""], scorer)

    def close() -> None:
        made.feed.close()
        of_judge.close()

    return made._replace(evaluate=judged(config, told, of_judge), feed=made.feed._replace(close=close))


def judged(config: ConfigDict, told: Task, scorer: Scores) -> Evaluate:
    return judge(
        told.shape, Trainable(told.shape, config.agent).params, told.words, told.parts, scorer, told.render,
        sampling_of(config, told), config.judge.samples, config.judge.batch_size, DTYPES[config.agent.dtype],
        config.judge.execute,
    )


def sampling_of(config: ConfigDict, told: Task, temperature: float = 1.0) -> Sampling:
    longest = config.agent.get("max_new_tokens", LONGEST)
    return Sampling(max_new_tokens=longest, stop=told.words.stop, temperature=temperature)


def options(config: ConfigDict, exact: bool) -> dict[str, Any]:
    return {"exact": exact, "longest": config.reward.longest}


# Supervised learning of the edit policy


def documents(told: Task, spoken: Language, rows: Sequence[Mapping[str, Any]], count: int = 1) -> Iterator[Document]:
    """Prompts with random edits: of a random line that has any, a random one that the language can say."""
    chosen = np.random.default_rng(0)
    for group, row in enumerate(rows):
        source = source_of(row)
        by_line: dict[int, list[list[int]]] = {}
        for edit in edits(source):
            if (answer := spoken.answer(source, edit)) is not None:
                by_line.setdefault(edit.line, []).append(answer)
        lines = list(by_line.values())
        for _ in range(count):
            line = lines[chosen.integers(len(lines))]
            builder = Builder(told.shape.vocab_size, told.shape.context_length)
            builder.append(spoken.prompt(source), sampled=False).append(line[chosen.integers(len(line))], sampled=True)
            yield builder.document(group=group)


def supervised(config: ConfigDict, told: Task, spoken: Language) -> Rows:
    """What is learnt: random edits, or what the start says itself, one response to each question."""
    if config.task == "pretrain":
        return pad([*documents(told, spoken, told.train.rows, EDITS_OF_A_FUNCTION)], config.data.longest + LONGEST)
    found, size = [], len(told.train.rows)
    prompts = told.train.tokens, told.train.lengths
    # One set of responses for the runs of all seeds, as data are.
    samples = jax.device_get(sample(
        told.shape, told.params, *prompts, 1, sampling_of(config, told), jax.random.key(0),
    ))
    for row in range(size):
        start, end = samples.prompt_lengths[row], samples.lengths[row]
        builder = Builder(told.shape.vocab_size, told.shape.context_length)
        builder.append(samples.tokens[row, :start], sampled=False).append(samples.tokens[row, start:end], sampled=True)
        found.append(builder.document(group=row))
    return pad(found, config.data.longest + LONGEST)


# What a run leaves


def leaves_repairs(config: ConfigDict, told: Task, result: Result, workdir: Path) -> dict[str, Any]:
    """repairs.txt: for some held-out functions the most likely responses of the start and of the trained policy."""
    trained = first_run(result.state.params["policy"])
    model_file.save_model(workdir / "model.npz", trained, kind="start", domain="edits")
    part = told.parts[""]
    said = []
    for params in (told.params, trained):
        samples = sample(
            told.shape, params, part.tokens, part.lengths, 1, sampling_of(config, told, 0.0), jax.random.key(0)
        )
        texts = texts_of(jax.device_get(samples), told.words)
        said.append([told.render(row, text) for row, text in zip(part.rows, texts, strict=True)])
    scorer = Scorer("patch", options(config, exact=False))
    scores = [scorer.scores(part.rows, responses, 1.0) for responses in said]
    better = [n for n in range(len(part.rows)) if scores[1][n].score > scores[0][n].score]
    pages = [
        f"{before_and_after(part.rows[n], [responses[n] for responses in said], [x[n].score for x in scores])}"
        for n in better[:8]
    ]
    write_atomically(workdir / "repairs.txt", "\n".join(pages))
    greedy = [float(np.mean([x.parts["exact"] for x in found])) for found in scores]
    return {
        "model": str(workdir / "model.npz"), "repairs": str(workdir / "repairs.txt"),
        "exact_of_most_likely_before": greedy[0], "exact_of_most_likely_after": greedy[1],
    }


def before_and_after(row: Mapping[str, Any], responses: Sequence[str], scores: Sequence[float]) -> str:
    """A function, the diffs of two responses, and the true one."""

    def diff(after: Mapping[str, str]) -> str:
        found = patches.changes(row["files"], after).values()
        return "\n".join(line for text in found for line in text.split("\n") if line[0] in "+-")

    def of(response: str) -> str:
        try:
            return diff(patches.applied(row["files"], patches.parse(response)))
        except patches.PatchError as error:
            return f"refused: {error}"

    (path,) = row["files"]
    return (
        f"# {row['name']} in {path}\n{source_of(row)}# before: reward {scores[0]:.2f}\n{of(responses[0])}\n"
        f"# after: reward {scores[1]:.2f}\n{of(responses[1])}\n# the true change\n{diff(row['patched'])}\n"
    )

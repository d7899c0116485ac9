"""What the experiments that train on text share: the model they start from, their data, what they leave behind."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rl_jax.core.arrays import read_arrays
from rl_jax.core.experiment import Experiment, Metric
from rl_jax.core.files import atomically
from rl_jax.core.loop import Result
from rl_jax.core.mesh import first_run
from rl_jax.core.program import PyTree
from rl_jax.data.text import records
from rl_jax.data.text.records import Answer, Pair
from rl_jax.language import checkpoints, pairs
from rl_jax.language.documents import answer_documents, pair_documents
from rl_jax.language.dpo import dpo_program
from rl_jax.language.pairs import Pairs
from rl_jax.language.pretrained import Pretrained
from rl_jax.language.reward_model import learned, reward_model_program
from rl_jax.language.rollouts import Learned
from rl_jax.language.rows import Document, pack, pad
from rl_jax.language.sft import sft_program
from rl_jax.language.training import DTYPES, Trainable
from rl_jax.networks.model_file import save_model

MODEL = "model"  # the folder in a run's folder that holds what it trained
HEAD = "head.npz"  # the file in it with the head of a reward model


def data_config() -> ConfigDict:
    """Which model starts, and what it reads: the fields `model` and `data`."""
    return ConfigDict(
        {
            # stories260k, smollm2, a .gguf file, a folder of Hugging Face's, or that of a run of experiments.sft.
            "model": {"name": "stories260k"},
            "data": {
                "name": "",  # a set of rl_jax/data/text/records.py, or a file of your own
                "longest": 256,  # tokens of a document; longer ones are left out
                "held_out": 0.2,  # share of the prompts that is judged and never trained on
                "most": 0,  # documents or pairs of either part, the first that are short enough; 0 for all
            },
        }
    )


class Start(NamedTuple):
    """What a run starts from.

    Attributes:
      model: its parameters are on the host.
      train, held_out: records of disjoint prompts.
      inputs: for the run's provenance.
    """

    model: Pretrained
    train: list[Answer] | list[Pair]
    held_out: list[Answer] | list[Pair]
    inputs: dict[str, Any]


def load_model(name: str) -> Pretrained:
    """A model by its name, its file or folder, or the folder of a run that left one.

    Raises:
      FileNotFoundError or ValueError: as `checkpoints.load`; or there is no name.
    """
    if not name:
        raise ValueError("config.model.name is empty: give the model's folder, --config.model.name=FOLDER")
    folder = Path(name).expanduser() / MODEL
    return checkpoints.load(folder if folder.is_dir() else name)


def start(config: ConfigDict) -> Start:
    """The model of `config.model` and the records of `config.data`.

    Raises:
      FileNotFoundError or ValueError: as `checkpoints.load` and `records.load`; or one part has no record.
    """
    model = load_model(config.model.name)
    text = records.load(config.data.name)
    train, held_out = records.split(text.records, config.data.held_out)
    if not train or not held_out:
        raise ValueError(
            f"config.data.held_out={config.data.held_out} leaves {len(train)} records of {text.name} to train on and "
            f"{len(held_out)} to judge: both need some"
        )
    inputs = {"model": str(config.model.name), "data": text.name, "checksum": text.checksum}
    return Start(model._replace(params=jax.device_get(model.params)), train, held_out, inputs)


def sft_experiment(config: ConfigDict) -> Experiment:
    """Supervised fine-tuning; writes the folder `model`, which other runs start from and transformers opens."""
    found, data = start(config), config.data

    def documents(part: list[Answer] | list[Pair]) -> list[Document]:
        return answer_documents(found.model, records.answers(part), data.name, data.longest, data.most)

    train = documents(found.train)
    train = pack(train, config.packing) if config.packing else pad(train, data.longest)
    held_out = pad(documents(found.held_out), data.longest)
    logging.info("%d rows of %d tokens, %.0f%% of them of documents", *train.tokens.shape,
                 100 * np.mean(train.segments > 0))
    return Experiment(
        lambda config: sft_program(config, found.model.config, found.model.params, train, held_out), found.inputs,
        Metric("eval/loss", "held-out loss", "lower", "nats a token"), leaves_model(config, found.model),
    )


def reward_model_experiment(config: ConfigDict) -> Experiment:
    """A reward model; its last line says how accurate it would be to call the longer answer the better one.

    Writes the folder `model`, which PPO takes its rewards from.
    """
    found = start(config)
    train, held_out = (compared(found.model, part, config.data) for part in (found.train, found.held_out))

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        left = {}
        if jax.process_count() == 1:
            trained = first_run(result.state.params["reward"])
            left = {"model": leave(config, found.model, trained["decoder"], workdir)}
            with atomically(workdir / MODEL / HEAD) as file:
                np.savez(file, head=np.asarray(trained["head"]))
        lengths = (np.asarray(rows.mask).sum(-1) for rows in (held_out.first, held_out.second))
        longer = 0.5 * (1 + np.sign(np.subtract(*lengths)))
        left |= {"pairs": len(train), "held_out_pairs": len(held_out)}
        return left | {"longer_is_better_accuracy": float(longer.mean())}

    return Experiment(
        lambda config: reward_model_program(config, found.model.config, found.model.params, train, held_out),
        found.inputs, Metric("eval/accuracy", "held-out accuracy"), finish,
    )


def dpo_experiment(config: ConfigDict) -> Experiment:
    """DPO and its kin; writes the folder `model`, as `sft_experiment`."""
    found, data = start(config), config.data

    def alone(part: list[Answer] | list[Pair]) -> Pairs:
        documents = answer_documents(found.model, records.judged(part), data.name, data.longest, data.most)
        return pairs.judged(documents, data.longest)

    def together(part: list[Answer] | list[Pair]) -> Pairs:
        return compared(found.model, part, data)

    of_answers = config.agent.loss == "kto"
    train = (alone if of_answers else together)(found.train)
    held_out = (alone if of_answers and isinstance(found.held_out[0], Answer) else together)(found.held_out)
    return Experiment(
        lambda config: dpo_program(config, found.model.config, found.model.params, train, held_out), found.inputs,
        Metric("eval/accuracy", "held-out accuracy"), leaves_model(config, found.model),
    )


def compared(model: Pretrained, part: Sequence[Answer] | Sequence[Pair], data: ConfigDict) -> Pairs:
    """Records that are pairs as rows.

    Raises:
      ValueError: they are no pairs.
    """
    if not isinstance(part[0], Pair):
        raise ValueError(f"config.data.name={data.name} holds answers, and pairs are compared: name a set of pairs")
    return pairs.compared(pair_documents(model, part, data.name, data.longest, data.most), data.longest)


def leaves_model(config: ConfigDict, model: Pretrained) -> Callable[[Result, Path], dict[str, Any]]:
    """The end of a run that trains "policy": the first seed's is written as the folder `model`.

    Not by a run of several processes, none of which holds it all: its checkpoint has it.
    """

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        if jax.process_count() > 1:
            return {}
        return {"model": leave(config, model, first_run(result.state.params["policy"]), workdir)}

    return finish


def leave(config: ConfigDict, model: Pretrained, trained: PyTree, workdir: Path) -> str:
    """Writes the folder `model` of what was trained of a decoder, adapters merged; returns its path."""
    params = Trainable(model.config, config.agent).params(trained, jax.tree.map(jnp.asarray, model.params))
    folder = workdir / MODEL
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was shorter
    checkpoints.save_folder(folder, model._replace(params=params))
    return str(folder)


def load_reward(name: str, policy: Pretrained, dtype: str) -> Learned:
    """The reward model that a run of experiments.reward_model left in its folder.

    Args:
      policy: whose responses it reads; both must have the same tokens.
      dtype: of its layers' products.

    Raises:
      FileNotFoundError or ValueError: there is none, or it does not fit.
    """
    file = Path(name).expanduser() / MODEL / HEAD
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file: config.reward.model is the folder of a run of a reward model")
    model, head = load_model(name), read_arrays(file).get("head")
    if head is None or head.shape != (model.config.width,):
        raise ValueError(f"{file} is no head of the decoder beside it, of {model.config.width} numbers: train it again")
    ours, theirs = (one.tokenizer.backend.get_vocab(with_added_tokens=True) for one in (policy, model))
    if ours != theirs:
        raise ValueError(
            f"config.reward.model={name} has other tokens than {policy.tokenizer.source}: a reward model reads the "
            "tokens that the policy writes; train one from the same model"
        )
    return learned(model.config, jax.device_get(model.params), head, DTYPES[dtype])


def leaves_start(domain: str) -> Callable[[Result, Path], dict[str, Any]]:
    """The end of a run that trains "policy", a small decoder that others start from: the first seed's, model.npz."""

    def finish(result: Result, workdir: Path) -> dict[str, Any]:
        save_model(workdir / "model.npz", first_run(result.state.params["policy"]), kind="start", domain=domain)
        return {"model": str(workdir / "model.npz")}

    return finish

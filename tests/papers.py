"""The papers, one line each: what all of them promise is tested on these presets, without a word more from a paper.

`make test` runs the promises of programs (tests/promises) on one case a family, `make test-slow` on all others.
"""

import importlib
import importlib.util
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ml_collections import ConfigDict

from rl_jax.core.config import flat
from rl_jax.core.experiment import Experiment

ROOT = Path(__file__).resolve().parents[1]


class Paper(NamedTuple):
    """A folder of experiments/.

    Attributes:
      name: of the folder.
      tiny: names of its tiny presets by file of configs/, one case each.
      sweep: two values of a field that runs side by side, in the first of them; empty where none does.
      binaries: its modules that train.
      at_scale: presets at the authors' scale, as "<file of configs/>:<preset>", that no run of its `paper` stands for:
        they compile and take two steps in `make test-slow`.
      module: of an extra that its programs need; where it is not installed, they are skipped.
    """

    name: str
    tiny: Mapping[str, Sequence[str]]
    sweep: str = ""
    binaries: Sequence[str] = ("train",)
    at_scale: Sequence[str] = ()
    module: str = ""

    @property
    def marks(self) -> list[pytest.MarkDecorator]:
        """What its programs are marked with."""
        absent = self.module and importlib.util.find_spec(self.module) is None
        return [pytest.mark.skip(f"{self.module} is not installed, which {self.name} needs")] if absent else []


_OFFLINE = ("iql", "bc", "bc10", "td3_bc", "awac", "xql", "cql", "cal_ql", "sac_n", "edac", "rebrac", "dt")
_DUAL = ("", "recoil", "recoil_objective", "recoil_v", "smodice", "oril", "iq_learn", "bc_expert", "stability/xql_raw")

PAPERS = [
    Paper("offline_rl", {"offline_rl": _OFFLINE, "offline_to_online": ("", "iql", "cal_ql")},
          "agent.expectile=0.7,0.9", ("train", "finetune"), ("offline_rl:full",)),
    Paper("dual_rl", {"dual_rl": _DUAL}, "agent.lam=0.6,0.8", at_scale=("dual_rl:full",)),
    Paper("rlif", {"rlif": ("", "dagger", "reference")}, at_scale=("rlif:rlif_random/hopper-weak",)),
    Paper("sqirl", {"sqirl": ("ppo", "dqn", "sqirl")}, "agent.clip=0.1,0.2", at_scale=("sqirl:sqirl/unlock",)),
    Paper("kl_bayes", {"kl_bayes": ("", "reward", "off_policy", "pretrain", "texts")},
          "matching.learning_rate=0.001,0.003"),
    Paper("cpl", {"cpl": ("", "cpl_kl", "piql", "sft", "bc10", "pictures")}, "agent.alpha=0.1,0.3",
          at_scale=("cpl:paper-cpl_kl/drawer-open", "cpl:piql/double_integrator")),
    Paper("rlcm", {"rlcm": ("", "ddpo", "align", "pretrain")}),
    Paper("sft", {"sft": ("",)}, "agent.learning_rate=0.001,0.003", at_scale=("sft:stories260k/gsm8k",)),
    Paper("reward_model", {"reward_model": ("",)}, "agent.learning_rate=0.001,0.003"),
    Paper("dpo", {"dpo": ("", "kto")}, "agent.beta=0.1,0.3"),
    Paper("grpo", {"grpo": ("", "gspo", "reinforce_pp", "remax", "pool", "curriculum", "pretrain")},
          "agent.learning_rate=0.0003,0.001", at_scale=("grpo:dapo", "grpo:stories260k/gsm8k")),
    Paper("ppo_rlhf", {"ppo_rlhf": ("", "adaptive")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("ppo_rlhf:adaptive", "ppo_rlhf:stories260k/gsm8k")),
    Paper("swe_rl", {"swe_rl": ("", "exact", "sft", "pretrain", "text")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("swe_rl:stories260k",)),
    Paper("scope_rl", {"scope_rl": ("", "control", "candidate")},
          at_scale=("scope_rl:paper/acrobot", "scope_rl:paper/hopper")),
    Paper("hybridflow", {"hybridflow": ("", "grpo", "safe_rlhf", "pretrain")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("hybridflow:remax/one",)),
    Paper("light_r1", {"light_r1": ("", "sft2", "dpo-nca", "grpo")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("light_r1:sft1", "light_r1:tiny-gsm8k-sft1", "light_r1:tiny-gsm8k-dpo-nca",
                    "light_r1:tiny-gsm8k-grpo")),
    Paper("rlhs", {"rlhs": ("", "dpo-partial", "pg-weak", "ppo-partial")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("rlhs:pg-immediate", "rlhs:ppo-oracle")),
    Paper("rlhf_workflow", {"rlhf_workflow": ("", "rm", "pm", "gold")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("rlhf_workflow:sft", "rlhf_workflow:tiny-text-features", "rlhf_workflow:tiny-text-pm")),
    Paper("rlaif_v", {"rlaif_v": ("", "divide", "holistic", "rounds-truth")},
          at_scale=("rlaif_v:paper/divide", "rlaif_v:paper/rounds-truth")),
    Paper("rlhf_v", {"rlhf_v": ("", "ranking", "ddpo")}, "agent.learning_rate=0.0003,0.001",
          at_scale=("rlhf_v:ddpo-released", "rlhf_v:tiny-gsm8k-ddpo")),
    Paper("pairwise_rl", {"pairwise_rl": ("", "bt", "judge", "bt-scaled", "ppo")},
          "agent.learning_rate=0.0003,0.001",
          at_scale=("pairwise_rl:judge", "pairwise_rl:card/ppo", "pairwise_rl:tiny-paper-judge-sft")),
    Paper("rlzero", {"rlzero": ("", "rlzero", "image_reward", "encoder")}, "agent.tau=0.01,0.1",
          at_scale=("rlzero:full-infer/rlzero",)),
    Paper("v_ptr", {"v_ptr": ("", "reconstruction", "prior", "finetune")}, "agent.tau=0.01,0.1",
          at_scale=("v_ptr:paper-finetune",)),
    Paper("paccmann_rl", {"paccmann_rl": ("", "official", "generator", "profile", "predictor", "attention")},
          at_scale=("paccmann_rl:paper/generator",), module="rdkit"),
    Paper("paccmann_sars", {"paccmann_sars": ("", "official", "affinity")},
          at_scale=("paccmann_sars:paper/generator",), module="rdkit"),
    Paper("sindy_rl", {"sindy_rl": ("", "network_dyna", "ppo", "sindy", "network_next")},
          "agent.learning_rate=0.001,0.003", at_scale=("sindy_rl:paper/sindy_rl/swimmer",)),
    Paper("obs_history", {"obs_history": ("", "bc", "wordle-ilql")}, "agent.eta=0.1,1.0"),
    Paper("pbrl_randomization", {"pbrl_randomization": ("", "pbts", "linear")}, "rounds.epsilon=0.3,0.6",
          at_scale=("pbrl_randomization:thresholds/riverswim", "pbrl_randomization:always/freeway_10_fs30",
                    "pbrl_randomization:full-active")),
    Paper("rleegnet", {"rleegnet": ("", "cross_entropy", "streaming")}, "agent.learning_rate=0.001,0.003"),
    Paper("l2m", {"l2m": ("", "l2m", "l2p", "prefix", "ewc")}, "agent.learning_rate=0.001,0.003"),
]


class Case(NamedTuple):
    """A program of a paper: one of its tiny presets."""

    paper: str
    config: str
    preset: str

    @property
    def name(self) -> str:
        return "_".join(filter(None, [self.config, self.preset.removeprefix("tiny").strip("-").replace("/", "_")]))


CASES = [
    Case(paper.name, config, f"tiny-{preset}".strip("-"))
    for paper in PAPERS for config, presets in paper.tiny.items() for preset in presets
]
# What stands for all programs of its kind in `make test`.
FAMILIES = {
    "offline": "offline_rl_iql", "on the device": "sqirl_ppo", "in a simulator": "offline_to_online",
    "scored samples": "rlcm", "text": "rlhf_v_ddpo",
}


def by_name(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def parameters(cases: Sequence[Case] = CASES, quick: Collection[str] = tuple(FAMILIES.values())) -> list:
    """Cases as pytest parameters; those whose name is not among `quick` are slow."""
    marks = {paper.name: paper.marks for paper in PAPERS}
    return [
        pytest.param(case, id=case.name, marks=marks[case.paper] + ([] if case.name in quick else [pytest.mark.slow]))
        for case in cases
    ]


def one_a_family() -> list:
    """The families' cases: what tests a promise of the core, which no program can break. One is of `make test`."""
    return parameters([by_name(name) for name in FAMILIES.values()], [FAMILIES["on the device"]])


def one_a_configuration() -> list:
    """The first program of each file of configs/, and the families' cases: what tests that a paper's data, feed and
    evaluation keep a promise, which are the same in all of its programs. Two are of `make test`."""
    first = {case.config: case for case in reversed(CASES)}.values()
    cases = [case for case in CASES if case in first or case.name in FAMILIES.values()]
    return parameters(cases, [FAMILIES["offline"], FAMILIES["on the device"]])


def get_config(name: str, preset: str, fields: Mapping[str, Any] = {}) -> ConfigDict:
    """A configuration whose data sets are made in the session's folder."""
    config = importlib.import_module(f"configs.{name}").get_config(preset)
    if "dataset" in config:
        config.dataset.data_dir = os.environ["RL_JAX_TEST_DATA"]
    config.update_from_flattened_dict(fields)
    return config


def smaller(config: ConfigDict, limits: Mapping[str, int]) -> ConfigDict:
    """The configuration with no field above its limit; a field that it lacks or that is 0 stays."""
    fields = flat(config)
    config.update_from_flattened_dict({name: most for name, most in limits.items() if fields.get(name, 0) > most})
    return config


def make_experiment(paper: str, config: ConfigDict) -> Experiment:
    return importlib.import_module(f"experiments.{paper}.experiment").experiment(config)

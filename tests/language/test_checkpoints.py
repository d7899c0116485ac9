"""Real weights: folders of each family against transformers' numbers, stories260k's own text, and damage by name."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rl_jax.core.mesh import make_mesh
from rl_jax.language.checkpoints import load, load_folder, save_folder
from rl_jax.language.decoder import Decoder, head_kernel, logits
from rl_jax.language.sampler import Sampling, sample
from rl_jax.language.stories import FOLDER
from tests.language import folders

WEIGHTS = "model.safetensors"
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high."
)


def logits_of(model, tokens):
    positions = jnp.tile(jnp.arange(tokens.shape[1]), (len(tokens), 1))
    hidden = jax.jit(Decoder(model.config).apply)({"params": model.params}, tokens, positions, jnp.ones_like(positions))
    return logits(hidden, head_kernel(model.params, model.config))


@pytest.fixture(scope="module")
def stories():
    return load("stories260k")


@pytest.fixture
def folder(tmp_path):
    return folders.write_folder(tmp_path / "model", "qwen2_yarn")


def change(file, **settings):
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def rewrite(folder, spoil):
    save_file(spoil(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def same(one, other):
    assert one.config == other.config
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_the_story_model_tells_the_story_of_its_source(stories):
    tokens = np.asarray([[stories.tokenizer.bos]], np.int32)
    sampling = Sampling(temperature=0.0, max_new_tokens=90)
    found = sample(stories.config, stories.params, tokens, np.asarray([1]), 1, sampling, jax.random.key(0))
    assert stories.tokenizer.decode(found.tokens[0]).startswith(STORY)
    assert stories.template is None
    source = (FOLDER / "SOURCE.md").read_text(encoding="utf-8")
    assert STORY in " ".join(source.split())


def test_the_story_model_likes_stories_better_than_news(stories):
    def loss(text):
        tokens = stories.tokenizer.encode(text, bos=True)[None, :32]
        log_probs = jax.nn.log_softmax(logits_of(stories, tokens)[0, :-1])
        return -np.mean(np.take_along_axis(log_probs, tokens[0, 1:, None], axis=1))

    told = loss("Once upon a time, there was a little boy named Tim. He liked to play with his red ball in the park.")
    news = loss("The central bank raised its key interest rate by a quarter point on Thursday, citing inflation.")
    assert told < 1.5 and news > 3.5


@pytest.mark.parametrize("name", ["llama", "llama3", "qwen2_yarn", "qwen3"])
def test_a_folder_of_each_family_gives_transformers_logits(name, tmp_path):
    model = load(folders.write_folder(tmp_path / "model", name))
    expected = folders.GOLDEN[f"{name}/logits"]
    np.testing.assert_allclose(logits_of(model, folders.GOLDEN["tokens"]), expected, atol=2e-5)
    assert model.template.render([{"role": "user", "content": "A"}]) == "<|user|>A<|end|>\n"
    save_folder(tmp_path / "again", model)
    same(load(tmp_path / "again"), model)
    written = load_file(tmp_path / "again" / WEIGHTS)
    expected = folders.tensors(name)
    assert written.keys() == expected.keys()
    for path, x in expected.items():
        np.testing.assert_array_equal(written[path], x, err_msg=path)


def test_parameters_are_made_where_they_belong(folder, tmp_path):
    plain = load_folder(folder)
    mesh = make_mesh(data=2, model=2, devices=jax.devices()[:4])
    laid = load_folder(folder, mesh=mesh)
    same(laid, plain)
    kernel = laid.params["layers"]["attention"]["q"]["kernel"]
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(2, 8, 8)}
    assert laid.params["norm"]["scale"].sharding.is_fully_replicated
    save_folder(tmp_path / "from_shards", laid)
    same(load_folder(tmp_path / "from_shards"), plain)


def test_half_precision_and_several_files(folder, tmp_path):
    model = load_folder(folder)
    save_folder(tmp_path / "half", model, dtype=jnp.bfloat16, shard_bytes=2000)
    assert len(list((tmp_path / "half").glob("model-*.safetensors"))) > 3
    assert not list(tmp_path.glob(".*"))
    half = load_folder(tmp_path / "half", dtype=jnp.bfloat16)
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params)
    jax.tree.map(np.testing.assert_array_equal, half.params, rounded)
    assert half.params["norm"]["scale"].dtype == jnp.bfloat16
    first = next((tmp_path / "half").glob("model-*.safetensors"))
    shutil.copy(first, first.with_name("model-00099.safetensors"))
    index = tmp_path / "half" / f"{WEIGHTS}.index.json"
    change(index, weight_map=json.loads(index.read_text())["weight_map"] | {"more": "model-00099.safetensors"})
    with pytest.raises(ValueError, match="is in another file of the folder too"):
        load_folder(tmp_path / "half")
    first.unlink()
    with pytest.raises(FileNotFoundError, match=f"names {first.name}, which are missing"):
        load_folder(tmp_path / "half")


def test_stories_in_a_folder_tell_the_same(stories, tmp_path):
    save_folder(tmp_path / "stories", stories)
    read = load(str(tmp_path / "stories"))
    same(read, stories)
    text = "Once upon a time, café"
    np.testing.assert_array_equal(read.tokenizer.encode(text, bos=True), stories.tokenizer.encode(text, bos=True))
    assert read.template is None


def test_a_folder_appears_whole_or_not_at_all(folder, tmp_path, monkeypatch):
    model = load_folder(folder)
    with pytest.raises(FileExistsError, match="model is there already: name a folder that is not"):
        save_folder(folder, model)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space left on device.*again"):
        save_folder(tmp_path / "again", model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"model_type": "gemma3"}, "model_type is 'gemma3', and of llama, qwen2, qwen3"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is"),
        ({"layer_types": ["sliding_attention"]}, "layer_types has 'sliding_attention'"),
        ({"hidden_size": None}, "width is None"),
        ({"num_hidden_layers": 10**9}, "num_layers is 1000000000"),
        ({"num_hidden_layers": True}, "num_layers is True"),
        ({"rms_norm_eps": "small"}, "norm_eps is 'small'"),
        ({"num_key_value_heads": 3}, "num_kv_heads=3 does not divide"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1.0}}, "'longrope'"),
        ({"rope_parameters": [1]}, "the rotary scaling is"),
        ({"vocab_size": 60}, "64 tokens, and the model of .* has 60"),
    ],
)
def test_a_decoder_that_we_do_not_have_is_named(folder, settings, message):
    change(folder / "config.json", **settings)
    with pytest.raises(ValueError, match=message):
        load_folder(folder)


def test_tensors_that_do_not_fit_are_named_all_at_once(folder):
    def spoil(tensors):
        del tensors["model.layers.1.self_attn.q_proj.bias"]
        return tensors | {"model.norm.weight": np.zeros(7, np.float32), "model.vision.weight": np.zeros(1, np.float32)}

    rewrite(folder, spoil)
    with pytest.raises(ValueError) as error:
        load_folder(folder)
    for said in (
        str(folder),
        "1 missing: model.layers.1.self_attn.q_proj.bias",
        "1 unknown: model.vision.weight",
        "1 of another shape: model.norm.weight (is (7,), (16,) by the configuration)",
        "Take both from the same model",
    ):
        assert said in str(error.value)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_named(folder, bad):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = bad
        return tensors

    rewrite(folder, spoil)
    with pytest.raises(ValueError, match="tensor model.layers.1.mlp.up_proj.weight holds NaN or infinity.*copy the"):
        load_folder(folder)


def test_quantised_integers_are_no_weights(folder):
    rewrite(folder, lambda tensors: tensors | {"model.norm.weight": np.ones(16, np.int8)})
    with pytest.raises(ValueError, match="model.norm.weight is of the type I8, and only F64, F32, F16, BF16"):
        load_folder(folder)


def test_missing_and_damaged_files_are_named(folder):
    with pytest.raises(FileNotFoundError, match="absent is no folder.*smollm2 or stories260k"):
        load(folder / "absent")
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-5])
    with pytest.raises(ValueError, match="model.safetensors is not a whole safetensors file.*copy it again"):
        load_folder(folder)
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"weights there: pytorch_model.bin\). Other formats run code"):
        load_folder(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="config.json is damaged"):
        load_folder(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json is missing: give the folder of a model"):
        load_folder(folder)


def test_templates_in_all_their_places(folder):
    file = folder / "tokenizer_config.json"
    named = {"tools": "t", "default": "d{{ eos_token }}"}
    change(file, chat_template=[{"name": name, "template": source} for name, source in named.items()])
    assert load_folder(folder).template.render([]) == "d</s>"
    (folder / "chat_template.jinja").write_text("own")
    assert load_folder(folder).template.render([]) == "own"
    (folder / "chat_template.jinja").unlink()
    change(file, chat_template=3)
    with pytest.raises(ValueError, match="chat_template is no text"):
        load_folder(folder)
    change(file, chat_template=None)
    assert load_folder(folder).template is None


@pytest.mark.slow
def test_transformers_opens_what_is_written(stories, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is of the extra parity")
    torch = pytest.importorskip("torch", reason="torch is of the extra parity")
    names = ["stories", "llama3", "qwen2_yarn", "qwen3"]
    for name in names:
        model = stories if name == "stories" else load(folders.write_folder(tmp_path / f"{name}_given", name))
        save_folder(tmp_path / name, model)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name).eval()
        tokens = np.random.default_rng(0).integers(0, 60, (2, 20))
        with torch.no_grad():
            np.testing.assert_allclose(logits_of(model, tokens), theirs(torch.as_tensor(tokens)).logits, atol=1e-4)
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert tokenizer.eos_token_id == model.tokenizer.eos
        begins = model.tokenizer.bos is not None
        ours = model.tokenizer.encode("AB", begins).tolist()[begins:]
        assert tokenizer.encode("AB", add_special_tokens=False) == ours
        if model.template is not None:
            talk = [{"role": "user", "content": "A"}]
            assert tokenizer.apply_chat_template(talk, tokenize=False) == model.template.render(talk)

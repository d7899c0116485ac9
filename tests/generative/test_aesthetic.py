"""The aesthetic head: a chain of linear layers, files of torch and of safetensors, files that hold something else."""

import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rl_jax.generative import aesthetic
from rl_jax.generative.aesthetic import AestheticHead, load_head, read_torch
from tests.golden.weights import numbers, weight

TORCH = Path(__file__).parents[1] / "golden" / "tensors.pth"
WIDTHS = [768, 1024, 128, 64, 16, 1]


def published():
    """The authors' names and shapes."""
    found = {}
    for number, before, after in zip((0, 2, 4, 6, 7), WIDTHS[:-1], WIDTHS[1:], strict=True):
        found[f"layers.{number}.weight"] = weight(f"layers.{number}.weight", (after, before))
        found[f"layers.{number}.bias"] = weight(f"layers.{number}.bias", (after,))
    return found


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    file = tmp_path_factory.mktemp("head") / "head.safetensors"
    save_file(published(), file)
    return file


def test_layers_follow_one_another_on_embeddings_of_length_one(head):
    embeddings, tensors = numbers("embeddings", 3, 768), published()
    x = embeddings / np.sqrt(np.sum(np.square(embeddings), 1, keepdims=True))
    for number in (0, 2, 4, 6, 7):
        x = x @ tensors[f"layers.{number}.weight"].T + tensors[f"layers.{number}.bias"]
    params = load_head(head)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    found = AestheticHead().apply({"params": params}, embeddings)
    assert found.shape == (3,)
    np.testing.assert_allclose(found, x[:, 0], atol=1e-5)
    np.testing.assert_allclose(AestheticHead().apply({"params": params}, 7 * embeddings), found, atol=1e-5)


def test_a_file_of_torch_is_read_without_torch(head, monkeypatch):
    found, whole = read_torch(TORCH), numbers("tensors", 3, 4)
    expected = {"whole": whole, "transposed": whole.T, "part": whole[1:, ::2], "half": whole.astype(np.float16)}
    expected["one"] = whole[2, 3].astype(np.float64)
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)
    monkeypatch.setattr(aesthetic, "read_torch", lambda file: {name: x.astype("f2") for name, x in published().items()})
    half = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), load_head(head))
    jax.tree.map(np.testing.assert_array_equal, load_head(TORCH), half)


def test_what_does_not_fit_is_named_all_at_once(tmp_path):
    file, tensors = tmp_path / "head.safetensors", published()
    del tensors["layers.2.bias"]
    tensors |= {"layers.0.weight": np.zeros((1024, 512), np.float32), "layers.9.bias": np.zeros(1, np.float32)}
    save_file(tensors, file)
    with pytest.raises(ValueError) as error:
        load_head(file)
    for said in (
        f"{file} is not the aesthetic head of ViT-L/14",
        "layers.2.bias is missing",
        "layers.0.weight is (1024, 512) and not (1024, 768)",
        "layers.9.bias is not this head's",
    ):
        assert said in str(error.value)
    with pytest.raises(ValueError, match="layers.0.weight is missing.*half is not this head's"):
        load_head(TORCH)


def test_files_that_are_absent_or_broken(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pth is missing: give the file of the aesthetic head"):
        load_head(tmp_path / "absent.pth")
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="a.safetensors is not a whole safetensors file"):
        load_head(tmp_path / "a.safetensors")
    (tmp_path / "a.pth").write_bytes(TORCH.read_bytes()[:-99])
    with pytest.raises(ValueError, match=r"a.pth holds no tensors .*\(File is not a zip file\): save a dictionary"):
        load_head(tmp_path / "a.pth")


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def written(tmp_path, content):
    """An archive as torch's with another pickle in it."""
    file = tmp_path / "head.pth"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content if isinstance(content, bytes) else pickle.dumps(content, 2))
        archive.writestr("archive/data/0", np.zeros(2, np.float32).tobytes())
    return file


@pytest.mark.parametrize("content", [Call(exec, "raise SystemExit"), {"a": Call(open, "x", "w")}, {"a": Path("x")}])
def test_a_pickle_that_calls_anything_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"without torch \(it asks for (builtins|__builtin__|_io|io|pathlib)[\w.]*\)"):
        load_head(written(tmp_path, content))
    assert not (tmp_path / "x").exists()


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds a list: save a dictionary"):
        load_head(written(tmp_path, [1, 2]))
    with pytest.raises(ValueError, match="'epoch' is a int and no tensor"):
        load_head(written(tmp_path, {"epoch": 3}))
    with pytest.raises(ValueError, match="holds no tensors that can be read"):
        load_head(written(tmp_path, b"\x80\x02not a pickle"))
    with zipfile.ZipFile(written(tmp_path, {}), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/1", bytes(1 << 20))
    with pytest.raises(ValueError, match="it is compressed"):
        load_head(tmp_path / "head.pth")


@pytest.mark.parametrize("size, offset", [((3,), 0), ((2,), 1), ((1,), -1), ((2, 2), 0)])
def test_a_tensor_that_reaches_out_of_its_storage_is_refused(tmp_path, size, offset):
    # As torch writes {"a": a tensor}, by hand: _rebuild_tensor_v2(storage 0 of two floats, offset, size, strides of 1).
    def pickled(offset, size):
        def ints(values):
            return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

        storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI2\ntQ"
        arguments = storage + b"I%d\n" % offset + ints(size) + ints([1] * len(size))
        return b"\x80\x02}S'a'\nctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs."

    assert read_torch(written(tmp_path, pickled(0, (2,))))["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="holds no tensors that can be read"):
        read_torch(written(tmp_path, pickled(offset, size)))

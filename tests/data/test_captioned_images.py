"""Images with captions: what is read, what is refused, and how images are moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.data.captioned_images import augmented, load_captioned_images, over_white


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_what_is_transparent_is_laid_over_white(tmp_path):
    pixel = np.array([[[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]]], np.uint8)
    path = save(tmp_path / "a.npz", images=pixel, captions=np.array(["fox"]))
    found = load_captioned_images(path)
    # A fifth of the colour and four fifths of 255: 244, 224, 204.
    assert found.images.tolist() == [[[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]]
    assert found.captions == ("fox",)
    assert over_white(found.images) is found.images


def test_what_is_no_set_of_images_is_named(tmp_path):
    images, path = np.zeros((2, 4, 4, 3), np.uint8), tmp_path / "a.npz"
    with pytest.raises(FileNotFoundError, match="a.npz: no such file of images and captions"):
        load_captioned_images(path)
    path.write_bytes(b"PK broken")
    with pytest.raises(ValueError, match="a.npz: not a readable npz file"):
        load_captioned_images(path)
    for arrays, message in (
        ({"images": images}, "field 'captions' is missing"),
        ({"images": images / 2, "captions": np.array(["a", "b"])}, "images are float64 .*: give uint8"),
        ({"images": images[..., :2], "captions": np.array(["a", "b"])}, r"images are uint8 \(2, 4, 4, 2\)"),
        ({"images": images, "captions": np.array(["a"])}, "give 2 strings, one for each image"),
        ({"images": images, "captions": np.array([1, 2])}, "captions are int64"),
        ({"images": images, "captions": np.array(["a", " "])}, r"captions\[1\] is empty \(1 such ones\)"),
    ):
        with pytest.raises(ValueError, match=message):
            load_captioned_images(save(path, **arrays))


def test_augmented_images_are_mirrored_and_moved_copies():
    image = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    found = augmented(jnp.repeat(image, 400, 0), jax.random.key(0), 1)
    padded = np.pad(np.asarray(image[0, :, :, 0]), 1, mode="edge")
    mirrored = padded[:, ::-1]
    possible = {
        start[top : top + 3, left : left + 3].tobytes()
        for start in (padded, mirrored) for top in range(3) for left in range(3)
    }
    seen = [np.asarray(one[:, :, 0]).tobytes() for one in found]
    assert set(seen) == possible  # all 18 of them occur among 400, and nothing else
    same = augmented(image, jax.random.key(0), 0)
    assert same.tolist() in (image.tolist(), image[:, :, ::-1].tolist())

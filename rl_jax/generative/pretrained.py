"""Reads and writes pretrained latent diffusion models: folders as diffusers and transformers keep them.

A pipeline's folder holds unet/, vae/, text_encoder/ and tokenizer/. The folder of a network holds config.json and the
weights, in one safetensors file or in several with an index. Weights are returned as host arrays in the trees of our
networks, so that the caller decides where they lie; files are read tensor by tensor.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rl_jax.core.extras import require
from rl_jax.core.files import read_json
from rl_jax.core.program import PyTree
from rl_jax.generative.clip import CLIP, CLIPConfig, TextConfig, TextEncoder, VisionConfig, VisionEncoder
from rl_jax.generative.tokenizer import Tokenizer, load_tokenizer, save_tokenizer
from rl_jax.generative.unet import UNet, UNetConfig
from rl_jax.generative.vae import AutoencoderKL, VAEConfig
from rl_jax.networks.weight_files import find_weight_files, listed, open_safetensors

# Names of lists: our `resnets_0` is PyTorch's `resnets.0`.
LISTS = "down_blocks|up_blocks|resnets|attentions|transformer_blocks|downsamplers|upsamplers|net|to_out|layers"
# Settings that older config.json files lack; our defaults are right for them.
LATER = {
    "sample_size", "transformer_layers_per_block", "use_linear_projection", "time_cond_proj_dim", "scaling_factor",
    "hidden_act", "layer_norm_eps", "eos_token_id",
}
# Older names of the layers of an autoencoder's attention.
OLDER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
BESIDE = r"^vision_model\.(?=visual_projection)"  # in files it lies beside the encoder, in our tree inside it
TAKE = "take it from the model that the weights are of"
OTHER_WEIGHTS = (
    "Those of another variant, e.g. fp16, are read with --config.pipeline.variant=fp16 (a reward's with "
    "--config.reward_options.variant=fp16); other formats must be saved as safetensors by the library that wrote them"
)
# Larger numbers in a config.json are damage.
MAX_NUMBER, MAX_LAYERS = 1_000_000, 1_000


class Part(NamedTuple):
    """One network: its configuration and its parameters (numpy arrays)."""

    config: Any
    params: PyTree


class Pipeline(NamedTuple):
    """A text-to-image model.

    Attributes:
      scheduler: the content of scheduler/scheduler_config.json; empty where there is no such file.
    """

    unet: Part
    vae: Part
    text_encoder: Part
    tokenizer: Tokenizer
    scheduler: dict[str, Any]


class Network(NamedTuple):
    """The layout of one kind of network in files.

    Attributes:
      class_name: in diffusers or transformers.
      config: our configuration's class.
      module: of a configuration.
      inputs: of a configuration; the arguments that initialise its module, as shapes.
      weights: the name of the weight files without suffix.
      marks: entries of config.json beside the configuration's fields.
      fixed: settings for which our network supports one value only; None where config.json has much else, which is not
        checked.
      alike: settings that do not change what is computed.
      prefix: of the names of published tensors.
      others: a regex of tensors that belong to other networks.
    """

    class_name: str
    config: type
    module: Callable[[Any], nn.Module]
    inputs: Callable[[Any], tuple]
    weights: str
    marks: Callable[[Any], dict[str, Any]]
    fixed: dict[str, Any] | None = None
    alike: tuple[str, ...] = ()
    prefix: str = ""
    others: str = r"position_ids$"


def _unet_inputs(config: UNetConfig) -> tuple:
    side = 2 ** (len(config.block_out_channels) - 1)
    shapes = [(1, side, side, config.in_channels), (1,), (1, 1, config.cross_attention_dim)]
    shapes += [] if config.time_cond_proj_dim is None else [(1, config.time_cond_proj_dim)]
    return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)


def _images(side: int, channels: int) -> tuple:
    return (jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32),)


UNET = Network(
    class_name="UNet2DConditionModel",
    config=UNetConfig,
    module=UNet,
    inputs=_unet_inputs,
    weights="diffusion_pytorch_model",
    marks=lambda config: {"_class_name": "UNet2DConditionModel"},
    fixed={
        "act_fn": "silu", "mid_block_type": "UNetMidBlock2DCrossAttn", "downsample_padding": 1, "dropout": 0.0,
        "mid_block_scale_factor": 1, "resnet_time_scale_shift": "default", "resnet_out_scale_factor": 1.0,
        "time_embedding_type": "positional", "conv_in_kernel": 3, "conv_out_kernel": 3, "attention_type": "default",
    },
    alike=("upcast_attention", "addition_embed_type_num_heads"),
)
VAE = Network(
    class_name="AutoencoderKL",
    config=VAEConfig,
    module=AutoencoderKL,
    inputs=lambda config: _images(2 ** (len(config.block_out_channels) - 1), config.in_channels),
    weights="diffusion_pytorch_model",
    marks=lambda config: {
        "_class_name": "AutoencoderKL",
        "down_block_types": ["DownEncoderBlock2D"] * len(config.block_out_channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(config.block_out_channels),
    },
    fixed={"act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True},
    alike=("force_upcast", "down_block_types", "up_block_types"),
)
TEXT = Network(
    class_name="CLIPTextModel",
    config=TextConfig,
    module=TextEncoder,
    inputs=lambda config: (jax.ShapeDtypeStruct((1, 1), jnp.int32),),
    weights="model",
    marks=lambda config: {"model_type": "clip_text_model"},
    prefix="text_model.",
    others=r"position_ids$|^text_projection|^vision_|^visual_|^logit_scale$",
)
VISION = Network(
    class_name="CLIPVisionModelWithProjection",
    config=VisionConfig,
    module=VisionEncoder,
    inputs=lambda config: _images(config.image_size, 3),
    weights="model",
    marks=lambda config: {"model_type": "clip_vision_model"},
    prefix="vision_model.",
    others=r"position_ids$|^text_|^logit_scale$",
)
CLIP_MODEL = Network(
    class_name="CLIPModel",
    config=CLIPConfig,
    module=CLIP,
    inputs=lambda config: (*TEXT.inputs(config.text_config), *VISION.inputs(config.vision_config)),
    weights="model",
    marks=lambda config: {"model_type": "clip", "projection_dim": config.vision_config.projection_dim},
)


def load_pipeline(path: str | Path, dtype: Any = jnp.float32, variant: str = "") -> Pipeline:
    """Reads a text-to-image model from a folder with unet/, vae/, text_encoder/ and tokenizer/.

    Args:
      dtype: of the parameters and of the computation, except the autoencoder's, which stay float32.
      variant: of the weight files, e.g. "fp16" for diffusion_pytorch_model.fp16.safetensors; "" for those without one.

    Raises:
      FileNotFoundError: the folder, or a file in it, is missing.
      ValueError: a file is damaged, the networks are not of Stable Diffusion's kind, or weights do not fit their
        config.json.
    """
    path = _folder(path)
    index = _json(path / "model_index.json") if (path / "model_index.json").is_file() else {}
    for name, network in (("unet", UNET), ("vae", VAE), ("text_encoder", TEXT)):
        found = index.get(name, [None, network.class_name])
        found = found[-1] if isinstance(found, list) and found else found
        if found != network.class_name:
            raise ValueError(f"{path / 'model_index.json'}: {name} is a {found}; this project has {network.class_name}")
    scheduler = path / "scheduler" / "scheduler_config.json"
    return Pipeline(
        unet=load_unet(path / "unet", dtype, variant),
        vae=load_vae(path / "vae", jnp.float32, variant),
        text_encoder=load_text_encoder(path / "text_encoder", dtype, variant),
        tokenizer=load_tokenizer(path / "tokenizer"),
        scheduler=_json(scheduler) if scheduler.is_file() else {},
    )


def load_unet(path: str | Path, dtype: Any = jnp.float32, variant: str = "") -> Part:
    """Reads a U-Net from a folder with config.json and weights; arguments and errors: see `load_pipeline`."""
    return _load(UNET, path, dtype, variant)


def load_vae(path: str | Path, dtype: Any = jnp.float32, variant: str = "") -> Part:
    """Reads an autoencoder, see `load_unet`."""
    return _load(VAE, path, dtype, variant)


def load_text_encoder(path: str | Path, dtype: Any = jnp.float32, variant: str = "") -> Part:
    """Reads CLIP's text encoder, by itself or from a whole CLIP model; see `load_unet`."""
    return _load(TEXT, path, dtype, variant)


def load_vision_encoder(path: str | Path, dtype: Any = jnp.float32, variant: str = "") -> Part:
    """Reads CLIP's image encoder with its projection, by itself or from a whole CLIP model; see `load_unet`."""
    return _load(VISION, path, dtype, variant)


def load_clip(path: str | Path, dtype: Any = jnp.float32, variant: str = "") -> Part:
    """Reads a whole CLIP model, both encoders and their projections; see `load_unet`."""
    return _load(CLIP_MODEL, path, dtype, variant)


def save_pipeline(pipeline: Pipeline, path: str | Path) -> None:
    """Writes a folder that `load_pipeline` and diffusers read; parameters keep their dtype."""
    path = Path(path)
    parts = (("unet", UNET, "diffusers"), ("vae", VAE, "diffusers"), ("text_encoder", TEXT, "transformers"))
    for name, network, _ in parts:
        save_part(getattr(pipeline, name), network, path / name)
    save_tokenizer(pipeline.tokenizer, path / "tokenizer")
    index = {name: [library, network.class_name] for name, network, library in parts}
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    if pipeline.scheduler:
        _write_json(path / "scheduler" / "scheduler_config.json", pipeline.scheduler)
        index["scheduler"] = ["diffusers", pipeline.scheduler.get("_class_name", "DDIMScheduler")]
    _write_json(path / "model_index.json", {"_class_name": "StableDiffusionPipeline", **index})


def save_part(part: Part, network: Network, path: str | Path) -> None:
    """Writes one network: config.json and one safetensors file."""
    path = Path(path)
    tensors = {}
    for keys, x in flatten_dict(part.params).items():
        tensors[published_name(network, keys)] = np.asarray(np.transpose(x, torch_axes(keys, np.ndim(x))), order="C")
    _write_json(path / "config.json", {**network.marks(part.config), **_settings(part.config)})
    require("safetensors.numpy", "generative").save_file(tensors, path / f"{network.weights}.safetensors")


def parameter_shapes(network: Network, config: Any) -> PyTree:
    """Returns the tree of a network's parameters, as shapes."""
    return jax.eval_shape(network.module(config).init, jax.random.key(0), *network.inputs(config))["params"]


def published_name(network: Network, keys: tuple[str, ...]) -> str:
    """Returns the name of our parameter in files."""
    return re.sub(BESIDE, "", network.prefix + torch_name(keys))


def torch_name(keys: tuple[str, ...]) -> str:
    """Returns PyTorch's name of our parameter: (down_blocks_0, conv1, kernel) is down_blocks.0.conv1.weight."""
    leaf = "weight" if keys[-1] in ("kernel", "scale", "embedding") else keys[-1]
    return ".".join([*(re.sub(rf"^({LISTS})_(\d+)$", r"\1.\2", key) for key in keys[:-1]), leaf])


def torch_axes(keys: tuple[str, ...], ndim: int) -> tuple[int, ...]:
    """Returns the axes that transpose our parameter to PyTorch's: HWIO to OIHW, [in, out] to [out, in], else none."""
    return {4: (3, 2, 0, 1), 2: (1, 0)}[ndim] if keys[-1] == "kernel" else tuple(range(ndim))


def _load(network: Network, path: str | Path, dtype: Any, variant: str) -> Part:
    folder = _folder(path)
    config = _read_config(network, folder / "config.json", dtype)
    try:
        shapes = flatten_dict(parameter_shapes(network, config))
    except (ArithmeticError, AssertionError, TypeError, ValueError) as error:
        said = f"{folder / 'config.json'} describes no {network.class_name}"
        raise ValueError(f"{said} ({_line(error)}): {TAKE}") from error
    wanted = {_canonical(published_name(network, keys), network): (keys, leaf.shape) for keys, leaf in shapes.items()}
    params, unexpected, mismatched = {}, [], []
    suffix = f".{variant}" if variant else ""
    for file in find_weight_files(folder, network.weights, suffix, OTHER_WEIGHTS):
        with open_safetensors(file, "generative") as tensors:
            for published in tensors.keys():
                if re.search(network.others, published):
                    continue
                name = _canonical(published, network)
                if name not in wanted:
                    unexpected.append(f"{published} (in {file.name})")
                    continue
                keys, shape = wanted[name]
                axes = torch_axes(keys, len(shape))
                found, expected = tuple(tensors.get_slice(published).get_shape()), tuple(shape[axis] for axis in axes)
                if found != expected:
                    mismatched.append(f"{published} (is {found} in {file.name}, {expected} by config.json)")
                else:
                    x = np.transpose(tensors.get_tensor(published), np.argsort(axes))
                    params[keys] = np.asarray(x, dtype, order="C")
                del wanted[name]
    wrong = {"missing": list(wanted), "unexpected": unexpected, "of another shape": mismatched}
    if any(wrong.values()):
        said = [f"{len(names)} {kind}: {listed(names)}" for kind, names in wrong.items() if names]
        raise ValueError(
            f"{folder}: the weights do not fit config.json. {'; '.join(said)}. "
            "Take config.json and weights from the same model, and a whole copy of it"
        )
    return Part(config, unflatten_dict(params))


def _read_config(network: Network, file: Path, dtype: Any) -> Any:
    """Reads our configuration from config.json; raises ValueError for settings that our network does not support."""
    settings = _json(file)
    if network is CLIP_MODEL:
        if absent := {"text_config", "vision_config"} - settings.keys():
            raise ValueError(f"{file} has no {' and no '.join(sorted(absent))}: give the folder of a whole CLIPModel")
        return CLIPConfig(*(_read_config(part, file, dtype) for part in (TEXT, VISION)))
    part = f"{network.prefix.removesuffix('_model.')}_config"
    if part in settings:  # a whole CLIP model, whose own projection_dim counts
        if not isinstance(settings[part], dict):
            raise ValueError(f"{file}: {part} is {settings[part]!r}: {TAKE}")
        settings = settings[part] | {name: x for name, x in settings.items() if name == "projection_dim"}
    kind = settings.get("_class_name", network.class_name)
    if kind != network.class_name:
        raise ValueError(f"{file} is of a {kind}, and a {network.class_name} was asked for")
    values = {}
    for field in dataclasses.fields(network.config):
        if field.name in ("dtype", "remat"):
            continue
        if field.name not in settings:
            if field.name not in LATER:
                raise ValueError(f"{file} does not say {field.name}: {TAKE}")
            continue
        value = settings[field.name]
        if isinstance(value, list) and "tuple" not in str(field.type):
            raise ValueError(f"{file}: {field.name} is {value}; {network.class_name} is here built with one for all")
        most = MAX_LAYERS if "layers" in field.name else MAX_NUMBER
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int | float) and not abs(one) <= most or isinstance(one, dict | list):
                raise ValueError(f"{file}: {field.name} is {value!r}: {TAKE}")
        values[field.name] = tuple(value) if isinstance(value, list) else value
    if network.fixed is not None:
        for name in sorted(set(settings) - set(values) - set(network.alike)):
            off = network.fixed.get(name)
            if not name.startswith("_") and settings[name] != off and (off is not None or settings[name]):
                kind = network.class_name
                raise ValueError(f"{file}: {name} is {settings[name]!r}, and {kind} is here built with {off!r} alone")
    try:
        return network.config(**values, dtype=dtype)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def _line(error: Exception) -> str:
    """The first line of an error's message, or its kind where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _settings(config: Any) -> dict[str, Any]:
    """Returns a configuration's fields as in config.json, with those of its parts."""
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {
        name: _settings(x) if dataclasses.is_dataclass(x) else x
        for name, x in fields.items()
        if name not in ("dtype", "remat")
    }


def _canonical(published: str, network: Network) -> str:
    """Returns the name in current diffusers, without the prefix."""
    return ".".join(OLDER_NAMES.get(part, part) for part in published.removeprefix(network.prefix).split("."))


def _folder(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is no folder: give that of a model as diffusers saves it")
    return path


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: give the folder of a model as diffusers saves it")
    content = read_json(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds no object of settings: copy it again")
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")

"""Published weights to a tokenizer and back; the only file that knows the published file names and tensor names.

Enters: a folder, tensors by published name, or a tokenizer. Leaves: the same. Does not know what the networks do with
them.

    published                                         here
    encoder.encoder.feature_encoder.block_modules     encoder.block_modules
    encoder.pre_quant  style_embedding                pre_quant  style_embedding
    decoder.enc_p  decoder.dp                         vocoder.text_encoder  vocoder.duration_predictor
    decoder.flow   decoder.dec                        vocoder.flow  vocoder.decoder

Names map one to one, so that what was read is written back bit for bit. Lengths and directions of weights may also be
called `parametrizations.weight.original0` and `original1` in a file. Everything else that is published is known too:

    derived   the window, the mel bands and the tables of the quantizer: compared where they are there
    unused    the posterior and reference encoders, speakers, the phone head, a mask embedding: kept; each may be absent
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from dynin.checkpoint import require_fit
from dynin.errors import CheckpointError, ConfigError
from dynin.repository import open_repository, read_json, require_of, verify
from dynin.tokenizers.emova.config import EmovaConfig
from dynin.tokenizers.emova.features import MEL_BINS, hann_window, mel_filter_bank
from dynin.tokenizers.emova.quantizer import ScalarQuantizer
from dynin.tokenizers.emova.tokenizer import PUBLISHED, EmovaTokenizer

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
WEIGHTS_NAMES = (_WEIGHTS, "pytorch_model.safetensors")
_KINDS = {
    "model_type": "emova_speech_tokenizer",
    "s2u_unit_type": "40ms_multilingual_8888",
    "u2s_unit_type": "40ms_multilingual_8888_xujing_cosyvoice_FT",
}
MOST = 2**16
"""Larger numbers of styles come from damage."""
_POSTERIOR_LAYERS = 16
_LENGTH, _DIRECTION = ".parametrizations.weight.original0", ".parametrizations.weight.original1"
_FEATURIZER = "encoder.encoder.wav2spec.featurizer."
_POINTWISE = re.compile(r"decoder\.enc_p\.encoder\.attn_layers\.\d+\.conv_[qkvo]\.weight")
"""Stored as convolutions of one step, used as matrices."""

_RULES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^encoder\.block_modules", "encoder.encoder.feature_encoder.block_modules"),
    (r"^pre_quant", "encoder.pre_quant"),
    (r"(block_modules\.[01245])\.conv", r"\1.conv.conv"),
    (r"pos_conv_embed\.conv", "pos_conv.0"),
    (r"(block_modules\.\d\.layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"(block_modules\.\d\.layers\.\d+)\.attention", r"\1.self_attn"),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
    (r"^vocoder\.text_encoder\.embed_tokens", "decoder.enc_p.emb"),
    (r"^vocoder\.text_encoder\.project", "decoder.enc_p.proj"),
    (r"^vocoder\.text_encoder\.encoder", "decoder.enc_p.encoder"),
    (r"layers\.(\d+)\.attention\.(emb_rel_[kv])", r"attn_layers.\1.\2"),
    (r"layers\.(\d+)\.attention\.([qkv])_proj", r"attn_layers.\1.conv_\2"),
    (r"layers\.(\d+)\.attention\.out_proj", r"attn_layers.\1.conv_o"),
    (r"(enc_p\.encoder)\.layers\.(\d+)\.layer_norm", r"\1.norm_layers_1.\2"),
    (r"(enc_p\.encoder)\.layers\.(\d+)\.final_layer_norm", r"\1.norm_layers_2.\2"),
    (r"layers\.(\d+)\.feed_forward", r"ffn_layers.\1"),
    (r"^vocoder\.decoder\.upsampler", "decoder.dec.ups"),
    (r"^vocoder\.decoder", "decoder.dec"),
    (r"^vocoder\.flow\.flows\.(\d+)", lambda match: f"decoder.flow.flows.{2 * int(match[1])}"),
    (r"(flow\.flows\.\d+)\.wavenet", r"\1.enc"),
    (r"(flow\.flows\.\d+)\.conv_(pre|post)", r"\1.\2"),
    (r"^vocoder\.duration_predictor", "decoder.dp"),
    (r"flows\.0\.translate", "flows.0.m"),
    (r"flows\.0\.log_scale", "flows.0.logs"),
    (r"(dp\.(?:post_)?flows)\.([1-9])", lambda match: f"{match[1]}.{2 * int(match[2]) - 1}"),
    (r"(dp\.|dp\.(?:post_)?flows\.\d\.|dp\.post_)conv_(pre|proj)", r"\1\2"),
    (r"(dp\.|dp\.(?:post_)?flows\.\d\.|dp\.post_)conv_dds", r"\1convs"),
    (r"convs_dilated", "convs_sep"),
    (r"convs_pointwise", "convs_1x1"),
    (r"(norms_[12]\.\d+|norm_layers_[12]\.\d+)\.weight$", r"\1.GAMMA"),
    (r"(norms_[12]\.\d+|norm_layers_[12]\.\d+)\.bias$", r"\1.BETA"),
    (re.escape(_LENGTH) + "$", ".weight_g"),
    (re.escape(_DIRECTION) + "$", ".weight_v"),
)
"""From our names to the published ones, all in this order."""


def published_name(name: str) -> str:
    """The published name of a tensor of `EmovaTokenizer`."""
    for pattern, new in _RULES:
        name = re.sub(pattern, new, name)
    return name


def expected_shapes(config: EmovaConfig = PUBLISHED) -> dict[str, tuple[int, ...]]:
    """Every published name with its shape, without allocating the weights."""
    unused = {name: shape for part in _unused_shapes(config).values() for name, shape in part.items()}
    derived = {name: tuple(table.shape) for name, table in _derived(config).items()}
    return {**_stored(_state_shapes(config)), **unused, **derived}


def from_published(
    tensors: Mapping[str, Tensor], config: EmovaConfig = PUBLISHED
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of a tokenizer, and by published name what it does not use, sharing memory with the given tensors.

    Raises:
        CheckpointError: Listing every name that is missing or unknown and every shape that is wrong; or if a window,
            filter bank or table of the quantizer is not the one that codes are made with here.
    """
    tensors = _plain_names(tensors)
    shapes, derived = _state_shapes(config), _derived(config)
    expected = _stored(shapes)
    for part in _unused_shapes(config).values():
        if not part.keys().isdisjoint(tensors):
            expected |= part
    require_fit({**expected, **{name: tuple(derived[name].shape) for name in derived if name in tensors}}, tensors)
    for name, table in derived.items():
        if name in tensors:
            _require_equal(name, tensors[name], table)
    unused = dict(tensors)
    state = {name: unused.pop(published_name(name)).reshape(shape) for name, shape in shapes.items()}
    return state, unused


def to_published(
    state: Mapping[str, Tensor], unused: Mapping[str, Tensor] | None = None, config: EmovaConfig = PUBLISHED
) -> dict[str, Tensor]:
    """The inverse of `from_published`; derived tensors that are not among the unused ones are made.

    Raises:
        CheckpointError: If the state is not that of a tokenizer of this configuration, with every name as above.
    """
    shapes = _state_shapes(config)
    require_fit(shapes, state)
    stored = zip(shapes, _stored(shapes).items(), strict=True)
    return {
        **_derived(config),
        **(unused or {}),
        **{name: state[ours].reshape(shape) for ours, (name, shape) in stored},
    }


def load(folder: Path, *, config: EmovaConfig = PUBLISHED, dtype: torch.dtype = torch.float32) -> EmovaTokenizer:
    """The published tokenizer in a folder, on the CPU, ready to encode and decode.

    Weights lie in one file or in shards with an index. Nothing is drawn or allocated besides them.

    Args:
        config: Sizes; the styles are those of the folder's `config.json`.
        dtype: What the weights are turned into and the networks work in.

    Raises:
        CheckpointError: If `config.json` or the weights are missing, pickled, damaged, or not those of this tokenizer.
        RequestError: If the package transformers is missing.
    """
    config = _with_styles(folder / _CONFIG, config)
    stored = open_repository(folder, WEIGHTS_NAMES)
    verify(folder, stored.shards)
    given = _plain_names(dict(stored.stream()))
    require_of(folder, "speech tokenizer", given, _stored(_state_shapes(config)))
    try:
        state, unused = from_published(given, config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    with torch.device("meta"):
        tokenizer = EmovaTokenizer(config)
    tokenizer.load_state_dict(state, assign=True)
    tokenizer.unused = unused
    return tokenizer.to(dtype=dtype).eval().requires_grad_(False)


def save(folder: Path, tokenizer: EmovaTokenizer) -> None:
    """Write `config.json` and `model.safetensors` as published, each whole or not at all; `load` reads them.

    Raises:
        CheckpointError: If the folder holds other files, which `load` could take for these, or cannot be written.
    """
    others = sorted({path.name for path in folder.iterdir()} - {_CONFIG, _WEIGHTS}) if folder.is_dir() else []
    if others:
        raise CheckpointError(
            f"{folder}: holds {others[0]}, expected a folder to be made or an empty one; name another"
        )
    config = tokenizer.config
    tensors = to_published(tokenizer.state_dict(), tokenizer.unused, config)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    values = {
        **_KINDS,
        "u2s_num_styles": config.num_styles,
        "u2s_dim_styles": config.vocoder.style_dim,
        "u2s_style2idx": dict(config.style_rows),
    }
    text = json.dumps(values, indent=2) + "\n"
    _write_whole(folder / _WEIGHTS, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    _write_whole(folder / _CONFIG, lambda path: path.write_text(text, encoding="utf-8"))


def _state_shapes(config: EmovaConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        tokenizer = EmovaTokenizer(config)
    return {name: tuple(tensor.shape) for name, tensor in tokenizer.state_dict().items()}


def _stored(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Published names and shapes for ours, in the same order."""
    named = {published_name(name): shape for name, shape in shapes.items()}
    return {name: (*shape, 1) if _POINTWISE.fullmatch(name) else shape for name, shape in named.items()}


def _unused_shapes(config: EmovaConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """By part, what tokenizing does not use; a part is there as a whole or not at all."""
    sizes = config.vocoder
    dim, bins, style_dim = sizes.dim, sizes.num_spectrum_bins, sizes.style_dim
    posterior = {**_layer("pre", dim, bins, 1), **_layer("proj", 2 * dim, dim, 1)}
    for index in range(_POSTERIOR_LAYERS):
        is_last = index == _POSTERIOR_LAYERS - 1
        posterior |= _normed(f"enc.in_layers.{index}", 2 * dim, dim, 5)
        posterior |= _normed(f"enc.res_skip_layers.{index}", dim if is_last else 2 * dim, dim, 1)
    posterior |= _normed("enc.cond_layer", 2 * dim * _POSTERIOR_LAYERS, style_dim, 1)
    reference = {
        **_layer("spectral.0.fc", dim, bins),
        **_layer("spectral.3.fc", dim, dim),
        **_layer("temporal.0.conv1.conv", 2 * dim, dim, 5),
        **_layer("temporal.1.conv1.conv", 2 * dim, dim, 5),
        **_layer("fc.fc", style_dim, dim),
    }
    for name in ("w_qs", "w_ks", "w_vs", "fc"):
        reference |= _layer(f"slf_attn.{name}", dim, dim)
    phones = _layer("decoder_layers.0", config.num_phones, config.phone_dim, 1)
    for index in range(4):
        width = config.phone_dim if index else len(config.levels)
        phones |= _layer(f"conv_layers.{index}.conv.conv", config.phone_dim, width, 5)
    parts: dict[str, dict[str, tuple[int, ...]]] = {
        "decoder.enc_q.": posterior,
        "decoder.enc_r.": reference,
        "decoder.emb_g.": {"weight": (sizes.num_speakers, style_dim)},
        "encoder.decoder.": phones,
        "encoder.encoder.": {"mask_emb": (MEL_BINS,)},
    }
    return {prefix: {prefix + name: shape for name, shape in part.items()} for prefix, part in parts.items()}


def _layer(name: str, num_out: int, num_in: int, *kernel: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (num_out, num_in, *kernel), f"{name}.bias": (num_out,)}


def _normed(name: str, num_out: int, num_in: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """A convolution whose weight is a length and a direction."""
    shapes = {"weight_g": (num_out, 1, 1), "weight_v": (num_out, num_in, kernel), "bias": (num_out,)}
    return {f"{name}.{leaf}": shape for leaf, shape in shapes.items()}


def _derived(config: EmovaConfig) -> dict[str, Tensor]:
    """What follows from this code and stands in a published file all the same."""
    return {
        f"{_FEATURIZER}window": hann_window().clone(),
        f"{_FEATURIZER}fb": mel_filter_bank()[None].clone(),
        "encoder.quantizer._levels_np": torch.tensor(config.levels),
        "encoder.quantizer._basis": torch.tensor(ScalarQuantizer(config.levels).strides),
    }


def _require_equal(name: str, given: Tensor, table: Tensor) -> None:
    """CheckpointError unless a stored table is ours, up to how finely its dtype tells numbers apart."""
    finest = torch.finfo(given.dtype).eps if given.is_floating_point() else 0.0
    difference = float((given.to("cpu", torch.float64) - table).abs().max())
    if not difference <= max(1e-4, finest) * float(table.abs().max()):
        raise CheckpointError(
            f"{name} differs from what codes are made with here, by up to {difference:.3g}; codes would mean other "
            "sounds; use the weights of the published speech tokenizer"
        )


def _plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Lengths and directions of weights under their published names, where a newer library has renamed them."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        old = name.replace(_LENGTH, ".weight_g").replace(_DIRECTION, ".weight_v")
        if old in plain:
            raise CheckpointError(f"{old} is there twice, also as {name}; keep one of the two")
        plain[old] = tensor
    return plain


def _with_styles(path: Path, config: EmovaConfig) -> EmovaConfig:
    """The configuration with the styles of a published `config.json`."""
    values = read_json(path)
    expected = {"s2u_unit_type": _KINDS["s2u_unit_type"], "u2s_dim_styles": config.vocoder.style_dim}
    for key, value in expected.items():
        if values.get(key, value) != value:
            raise CheckpointError(f"{path}: {key} is {values[key]!r}, expected {value!r}; this is another tokenizer")
    rows, num_styles = values.get("u2s_style2idx"), values.get("u2s_num_styles", config.num_styles)
    if not isinstance(rows, dict) or not all(type(row) is int and row < MOST for row in (num_styles, *rows.values())):
        raise CheckpointError(
            f"{path}: u2s_style2idx does not give every style a row of the table; fetch the published file again"
        )
    try:
        return replace(config, style_rows=rows, num_styles=num_styles)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in its place."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(fresh)
        fresh.replace(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written; check permissions and free space") from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)

"""A published model's folder to a network and its vocabulary, and back; families, config keys and files are known here.

Enters: a folder with `config.json` and safetensors under the published names, or a network. Leaves: `Published`, which
has read nothing but headers yet; a `Transformer`; or such a folder. Does not know tokenizers of media or tasks; runs no
code that came with a model.

    family     model_type              rows      layout
    dynin      dynin_omni              138,752   text, 8,192 image codes, 4,096 speech codes
    mmada      mmada                   134,656   text, 8,192 image codes
    llada      llada                   126,464   text

Keys that a config leaves out have the values of the 8B model. Keys whose value this network does not implement, and
keys that contradict the weights, are errors. Two keys may be out of date and are only looked at where no weights can be
asked: `vocab_size` and `embedding_size` (the published code resizes the tables and forgets one of them).

Source:
    LLaDA-8B-Instruct, MMaDA-8B-MixCoT and Dynin-Omni configurations and checkpoints.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch

from dynin import repository, vocabulary
from dynin.config import suggest
from dynin.errors import CheckpointError, ConfigError, VocabularyError
from dynin.model import room
from dynin.model.config import ModelConfig
from dynin.model.convert import IGNORED_PREFIX, TABLE, expected_shapes, published_names
from dynin.model.memory import weight_bytes
from dynin.model.quantize import reform_of
from dynin.model.transformer import Transformer
from dynin.repository import Repository
from dynin.vocabulary import Vocabulary

CONFIG = "config.json"
LAYOUT_KEY = "dynin_vocabulary"
"""Where this project stores the vocabulary's layout in a published config; other engines pass it over."""
MAX_LISTED = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One kind of published model."""

    name: str
    """Of its vocabulary and its task table."""
    model_types: tuple[str, ...]
    num_rows: int
    image_codes: int
    speech_codes: int


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            Family(
                name="published",
                model_types=("dynin_omni", "dynin"),
                num_rows=138_752,
                image_codes=8192,
                speech_codes=4096,
            ),
            Family(name="mmada", model_types=("mmada",), num_rows=134_656, image_codes=8192, speech_codes=0),
            Family(name="llada", model_types=("llada",), num_rows=126_464, image_codes=0, speech_codes=0),
        )
    }
)
TEXT_LENGTHS = (126_349, 126_372, 126_464)
"""How many ids lie below the first image code: the LLaDA tokenizer's, with 23 names appended, padded."""

_ONLY: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "activation_type": ("silu", "swiglu"),
        "alibi": (False,),
        "attention_layer_norm": (False,),
        "bias_for_layer_norm": (False, None),
        "block_group_size": (1,),
        "block_type": ("llama",),
        "include_bias": (False,),
        "include_qkv_bias": (False, None),
        "input_emb_norm": (False,),
        "layer_norm_type": ("rms",),
        "layer_norm_with_affine": (True,),
        "rope": (True,),
        "rope_full_precision": (True,),
        "scale_logits": (False,),
        "tie_word_embeddings": (False, None),
        "weight_tying": (False,),
    }
)
"""Values of the keys that decide the arithmetic; the network implements no others."""

_INTEGERS: Mapping[str, int] = MappingProxyType(
    {
        "d_model": 4096,
        "n_heads": 32,
        "n_layers": 32,
        "mlp_hidden_size": 12_288,
        "max_sequence_length": 4096,
    }
)
_NUMBERS: Mapping[str, float] = MappingProxyType({"rope_theta": 500_000.0, "rms_norm_eps": 1e-5})
_ROWS = ("vocab_size", "embedding_size", "new_vocab_size")
_SPECIAL_KEYS = {"mask_token_id": "mask", "eos_token_id": "eos"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a folder holds, from its config and headers."""

    family: Family
    config: ModelConfig
    repository: Repository
    values: Mapping[str, object]
    """The config as it is written."""

    @property
    def layout(self) -> Vocabulary | None:
        """The layout that the config stores, None where it stores none (as the published ones do)."""
        stored = self.values.get(LAYOUT_KEY)
        return None if stored is None else Vocabulary.from_dict(stored)  # type: ignore[arg-type]


def is_published(folder: Path) -> bool:
    """Whether a folder's config names a family's model type."""
    path = folder / CONFIG
    return path.is_file() and "model_type" in repository.read_json(path)


def family_of(values: Mapping[str, object], place: Path) -> Family:
    """The family that a config belongs to; CheckpointError for any other."""
    model_type = values.get("model_type")
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES.values() for name in family.model_types]
    raise CheckpointError(f"{place}: model_type is {model_type!r}{suggest(str(model_type), known)}")


def read(folder: Path) -> Published:
    """Read config and headers and compare them; no tensor is read.

    Raises:
        CheckpointError: If the config is of another family, has a value that is not implemented or that contradicts
            the weights, or a tensor is missing, unknown or of a wrong shape.
    """
    path = folder / CONFIG
    values = repository.read_json(path)
    family = family_of(values, path)
    _require_implemented(values, path)
    files = repository.open_repository(folder)
    config = _config(values, family, files, path)
    _require_fit(config, files, path)
    return Published(family=family, config=config, repository=files, values=values)


def config_of(values: Mapping[str, object], place: Path) -> ModelConfig:
    """The network of a config alone, without weights; errors as in `read`.

    Keys that are out of date say too few rows, so the largest of them counts, and no fewer than the family has.
    """
    family = family_of(values, place)
    _require_implemented(values, place)
    told = [_whole(values[key], key, place) for key in _ROWS if values.get(key) is not None]
    least = 0 if told and LAYOUT_KEY in values else family.num_rows
    return _shape(values, max([least, *told]), place)


def choose_layout(published: Published, tokenizer_len: int, text_len: int | None = None) -> Vocabulary:
    """The vocabulary of a model: as asked for, as its config stores it, or the known layout of its tokenizer.

    Args:
        tokenizer_len: Number of ids of the text tokenizer, appended names included.
        text_len: Number of ids below the first image code, where the caller knows better.

    Raises:
        CheckpointError: If config, tokenizer and rows do not agree.
    """
    place, rows = published.repository.folder, published.config.num_rows
    layout = published.layout
    if text_len is None and layout is not None:
        if layout.size != rows:
            raise CheckpointError(
                f"{place / CONFIG}: {LAYOUT_KEY} has {layout.size} rows, the weights have {rows}; fetch both again"
            )
        text_ids = min(layout.image.start, layout.speech.start)
        if tokenizer_len > text_ids:
            raise CheckpointError(
                f"{place}: the text tokenizer has {tokenizer_len} ids, but media codes begin at {text_ids} "
                f"({CONFIG}); use the tokenizer that belongs to the model"
            )
        return layout
    if text_len is None:
        if tokenizer_len not in TEXT_LENGTHS:
            known = ", ".join(f"{length:,}" for length in TEXT_LENGTHS)
            raise CheckpointError(
                f"{place}: the text tokenizer has {tokenizer_len:,} ids, expected one of {known}; use the tokenizer "
                "that belongs to the model, or say where image codes begin with text_len (--text-len)"
            )
        text_len = tokenizer_len
    family = published.family
    try:
        return vocabulary.published(
            text_len,
            name=family.name,
            size=rows,
            image_codes=family.image_codes,
            speech_codes=family.speech_codes,
        )
    except VocabularyError as error:
        raise CheckpointError(f"{place}: with {text_len:,} text ids the layout does not fit ({error})") from error


def load_network(
    published: Published,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    weights: str = "",
) -> Transformer:
    """The network with its weights, read shard by shard: at most the weights and one shard are held at a time.

    Args:
        device: Where the weights go as they are read; None leaves them where tensors are made by default.
        dtype: What they are cast to; None keeps them as stored.
        weights: int8 or int4, see `model.quantize`; matrices take that form as they are read.

    Raises:
        CheckpointError: If a file is damaged, or the weights do not fit the memory of the device (`model.room`).
        RequestError: If the form of the weights is unknown or not to be had on the device.
    """
    files, folder = published.repository, published.repository.folder
    reform = reform_of(weights, device)
    size = files.num_bytes // sum(map(math.prod, files.shapes.values())) if dtype is None else dtype.itemsize
    room.require_memory(str(folder), sum(weight_bytes(published.config, size, weights).values()), device)
    repository.verify(folder, [folder / CONFIG, *published.repository.shards])
    with torch.device("meta"):
        model = Transformer(published.config)
    names = published_names(published.config)
    place = torch.get_default_device() if device is None else device
    is_copied = bool(weights)  # else what stays as it is would keep the whole file mapped, matrices and all
    state = {
        names[name]: reform(names[name], value.to(device=place, dtype=dtype, copy=is_copied))
        for name, value in files.stream()
        if name in names
    }
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def _require_implemented(values: Mapping[str, object], place: Path) -> None:
    wrong = [
        f"{key} is {values[key]!r}, expected {' or '.join(map(repr, allowed))}"
        for key, allowed in _ONLY.items()
        if key in values and values[key] not in allowed
    ]
    if wrong:
        raise CheckpointError(f"{place}: not a network of this family: {'; '.join(wrong)}")


def _config(values: Mapping[str, object], family: Family, files: Repository, place: Path) -> ModelConfig:
    """The shape of the network, its number of rows from the table itself."""
    if TABLE not in files.tensors:
        raise CheckpointError(f"{files.folder}: no tensor {TABLE}; these are not the weights of a {family.name} model")
    rows = files.tensors[TABLE].shape[0]
    if rows < family.num_rows and LAYOUT_KEY not in values:
        raise CheckpointError(
            f"{files.folder}: {TABLE} has {rows:,} rows, a {family.model_types[0]} model needs {family.num_rows:,}; "
            "are config and weights of one model?"
        )
    return _shape(values, rows, place)


def _shape(values: Mapping[str, object], rows: int, place: Path) -> ModelConfig:
    whole = {key: _whole(values.get(key, default), key, place) for key, default in _INTEGERS.items()}
    real = {key: _real(values.get(key, default), key, place) for key, default in _NUMBERS.items()}
    num_kv_heads = values.get("n_kv_heads")
    if num_kv_heads is None:
        num_kv_heads = 1 if values.get("multi_query_attention") else whole["n_heads"]
    elif values.get("multi_query_attention") and num_kv_heads != 1:
        raise CheckpointError(f"{place}: n_kv_heads is {num_kv_heads}, though multi_query_attention is set")
    for key, special in _SPECIAL_KEYS.items():
        expected = vocabulary.PUBLISHED[special]
        if LAYOUT_KEY not in values and values.get(key, expected) != expected:
            raise CheckpointError(f"{place}: {key} is {values[key]!r}, expected {expected}")
    try:
        return ModelConfig(
            d_model=whole["d_model"],
            num_heads=whole["n_heads"],
            num_kv_heads=_whole(num_kv_heads, "n_kv_heads", place),
            num_layers=whole["n_layers"],
            mlp_dim=whole["mlp_hidden_size"],
            num_rows=rows,
            max_len=whole["max_sequence_length"],
            rope_theta=real["rope_theta"],
            norm_eps=real["rms_norm_eps"],
        )
    except ConfigError as error:
        raise CheckpointError(f"{place}: {error}") from error


def _require_fit(config: ModelConfig, files: Repository, place: Path) -> None:
    """Compare names and shapes of the headers with the network that the config describes."""
    ours = expected_shapes(config)
    names = published_names(config)
    given = {name: shape for name, shape in files.shapes.items() if not name.startswith(IGNORED_PREFIX)}
    missing = sorted(names.keys() - given.keys())
    unknown = [f"{name} {given[name]}" for name in sorted(given.keys() - names.keys())]
    wrong = [
        f"{theirs} is {given[theirs]} in {files.tensors[theirs].shard.name}, the config says {ours[mine]}"
        for theirs, mine in names.items()
        if theirs in given and given[theirs] != ours[mine]
    ]
    kinds = {"missing": missing, "unknown": unknown, "of wrong shape": wrong}
    faults = [f"{kind}: {_some(entries)}" for kind, entries in kinds.items() if entries]
    if faults:
        raise CheckpointError(f"{place}: config and weights do not belong together; {'; '.join(faults)}")


def _some(entries: list[str]) -> str:
    more = len(entries) - MAX_LISTED
    return ", ".join(entries[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _whole(value: object, key: str, place: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"{place}: {key} is {value!r}, expected a whole number of at least 1")
    return value


def _real(value: object, key: str, place: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise CheckpointError(f"{place}: {key} is {value!r}, expected a positive number")
    return float(value)

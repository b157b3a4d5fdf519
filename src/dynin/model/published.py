"""A published model's folder to a network: the config's keys and the files are known here.

Enters: a folder with `config.json` and safetensors under the published names. Leaves: `Published`, which has read
nothing but headers yet, or a `Transformer`. Does not know tokenizers of media or tasks; runs no code that came with a
model. What the rows of the tables mean is said in `model.family`.

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
from torch import Tensor

from dynin import repository
from dynin.errors import CheckpointError, ConfigError
from dynin.model import room
from dynin.model.config import ModelConfig
from dynin.model.convert import IGNORED_PREFIX, TABLE, expected_shapes, published_names
from dynin.model.family import LAYOUT_KEY, Family, family_of, require_keys, require_rows, stored_layout
from dynin.model.memory import weight_bytes
from dynin.model.quantize import reform_of
from dynin.model.transformer import Transformer
from dynin.repository import DTYPES, Repository
from dynin.vocabulary import Vocabulary

CONFIG = "config.json"
MAX_LISTED = 6
MOST_LAYERS = 1024
MOST = 2**24
"""Larger numbers in a config come from damage, and would take minutes to be compared with the weights."""

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
        "num_new_special_tokens": (0, None),
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
        return stored_layout(self.values, self.repository.folder / CONFIG)


def is_published(folder: Path) -> bool:
    """Whether a folder's config names a family's model type."""
    path = folder / CONFIG
    return path.is_file() and "model_type" in repository.read_json(path)


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
    require_keys(values, path)
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
    require_keys(values, place)
    told = [_whole(values[key], key, place) for key in _ROWS if values.get(key) is not None]
    least = 0 if told and LAYOUT_KEY in values else family.num_rows
    return _shape(values, max([least, *told]), place)


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
        dtype: What they are cast to; None takes what most of them are stored in.
        weights: int8 or int4, see `model.quantize`; matrices take that form as they are read.

    Raises:
        CheckpointError: If a file is damaged, or the weights do not fit the memory of the device (`model.room`).
        RequestError: If the form of the weights is unknown or not to be had on the device.
    """
    files, folder = published.repository, published.repository.folder
    reform = reform_of(weights, device)
    kind = files.dtype if dtype is None else dtype
    require_room(published, device=device, dtype=dtype, weights=weights)
    repository.verify(folder, [folder / CONFIG, *files.shards])
    with torch.device("meta"):
        model = Transformer(published.config)
    names = published_names(published.config)
    place = torch.get_default_device() if device is None else device
    is_copied = bool(weights)  # else what stays as it is would keep the whole file mapped, matrices and all
    state: dict[str, Tensor] = {}
    for name, value in files.stream():
        if name in names:
            held = value.to(device=place, dtype=kind, copy=is_copied)
            _require_finite(name, held, files)
            state[names[name]] = reform(names[name], held)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False)


def require_room(
    published: Published,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    weights: str = "",
    beside: int = 0,
) -> None:
    """CheckpointError if the weights, and what is held beside them, do not fit the memory of the device."""
    size = (published.repository.dtype if dtype is None else dtype).itemsize
    num_bytes = sum(weight_bytes(published.config, size, weights).values())
    room.require_memory(str(published.repository.folder), num_bytes, device, beside)


PIECE = 1 << 20
"""Numbers of a weight that are looked at together."""


def _require_finite(name: str, value: Tensor, files: Repository) -> None:
    """CheckpointError for a weight that is no number: it would make every answer empty, without a word."""
    parts = value.flatten().split(PIECE)  # each is summed in float32, which would double a whole table
    if not all(bool(part.sum(dtype=torch.float32).isfinite()) for part in parts):
        stored = files.tensors[name]
        raise CheckpointError(
            f"{stored.shard}: {name} holds values that are not finite as {value.dtype}; fetch it again, or load it in "
            f"the dtype it is stored in ({stored.dtype})"
        )


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
    if LAYOUT_KEY not in values:
        require_rows(family, rows, files.folder)
    codes = {"new_vocab_size": 0, "llm_vocab_size": family.image_codes + family.speech_codes}
    for key, more in codes.items() if LAYOUT_KEY not in values else ():
        needed = more if values.get(key) is None else _whole(values[key], key, place) + more
        if needed > rows:
            raise CheckpointError(
                f"{place}: {key} is {values[key]}, which needs {needed:,} rows, but {TABLE} has {rows:,}; fetch both "
                "again"
            )
    return _shape(values, rows, place)


def _shape(values: Mapping[str, object], rows: int, place: Path) -> ModelConfig:
    whole = {key: _whole(values.get(key, default), key, place) for key, default in _INTEGERS.items()}
    if whole["n_layers"] > MOST_LAYERS:
        raise CheckpointError(f"{place}: n_layers is {whole['n_layers']}, expected at most {MOST_LAYERS}")
    real = {key: _real(values.get(key, default), key, place) for key, default in _NUMBERS.items()}
    num_kv_heads = values.get("n_kv_heads")
    if num_kv_heads is None:
        num_kv_heads = 1 if values.get("multi_query_attention") else whole["n_heads"]
    elif values.get("multi_query_attention") and num_kv_heads != 1:
        raise CheckpointError(f"{place}: n_kv_heads is {num_kv_heads}, though multi_query_attention is set")
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
    no_numbers = [
        f"{name} as {stored.dtype} in {stored.shard.name}"
        for name, stored in files.tensors.items()
        if name in names and stored.dtype not in DTYPES
    ]
    kinds = {
        "missing": missing,
        "unknown": unknown,
        "of wrong shape": wrong,
        f"stored as other than {', '.join(DTYPES)}": no_numbers,
    }
    faults = [f"{kind}: {_some(entries)}" for kind, entries in kinds.items() if entries]
    if faults:
        raise CheckpointError(f"{place}: config and weights do not belong together; {'; '.join(faults)}")


def _some(entries: list[str]) -> str:
    more = len(entries) - MAX_LISTED
    return ", ".join(entries[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _whole(value: object, key: str, place: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        raise CheckpointError(f"{place}: {key} is {value!r}, expected a whole number from 1 to {MOST:,}")
    return value


def _real(value: object, key: str, place: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{place}: {key} is {value!r}, expected a positive number")
    return float(value)

"""Published weight names and shapes to ours, and back; the only file that knows the published ones.

Enters: a folder of safetensors, or tensors by our names. Leaves: the parts of a published VIRST by name, adapters
folded into their matrices; or tensors by published names. Does not know what the networks do with them.

    VideoChat-Flash                                      here
    model.vision_tower.vision_tower.encoder.blocks.7.*   tower.blocks.7.*      (norm1, attn, norm2, mlp: see the table)
    model.mm_projector.mlp.0  .2                         connector.first  .second
    model.layers.*  model.embed_tokens  model.norm       language.*
    lm_head                                              head
    the row of [SEG] in model.embed_tokens               st_embed

A VIRST has the same below `base_model.model.`, as the package `peft` wraps it, and besides:

    model.seg_model.*                                    the mask branch, handed on by its own published names
    model.seg_prompter.*  model.initial_seg_fusion_module.*      the fusions, likewise
    model.occ_predictor.*                                passed over: allocated, never used

Adapters lie beside their matrix as `X.lora_A.default.weight` and `X.lora_B.default.weight`. The matrix itself is
`X.weight` as older versions of `peft` write it, `X.base_layer.weight` as newer ones do.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from dynin.errors import CheckpointError
from dynin.repository import DTYPES, Repository
from dynin.tokenizers.text import ByteLevelText
from dynin.virst.backbone.videochat.config import VideoChatConfig
from dynin.virst.backbone.videochat.model import VideoChat

Layout = Literal["plain", "peft-0.4", "peft"]
"""How names are written: VideoChat-Flash's own, or VIRST's, with adapters as older or newer versions of `peft` do."""

LORA_ALPHA = 16.0
"""Adapters count alpha / rank; the published ones have rank 64."""
ST = "st_embed"
TABLE = "model.embed_tokens.weight"
MAX_LISTED = 6
WRAPPED = "base_model.model."
_ENCODER = "model.vision_tower.vision_tower.encoder."
_ADAPTER = re.compile(r"(.+)\.lora_([AB])\.(?:([^.]+)\.)?weight")
_RULES: tuple[tuple[str, str], ...] = (
    (r"^language\.", "model."),
    (r"^head\.", "lm_head."),
    (r"^connector\.first\.", "model.mm_projector.mlp.0."),
    (r"^connector\.second\.", "model.mm_projector.mlp.2."),
    (r"^tower\.", _ENCODER),
    (rf"^({re.escape(_ENCODER)})patches\.", r"\1patch_embed.proj."),
    (rf"^({re.escape(_ENCODER)})norm\.", r"\1vision_layernorm."),
    (r"(blocks\.\d+)\.attention_norm\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.mlp_norm\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.attention\.query_bias$", r"\1.attn.q_bias"),
    (r"(blocks\.\d+)\.attention\.value_bias$", r"\1.attn.v_bias"),
    (r"(blocks\.\d+)\.attention\.qkv\.", r"\1.attn.qkv."),
    (r"(blocks\.\d+)\.attention\.output\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.up\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.down\.", r"\1.mlp.fc2."),
)
"""From our names to those of VideoChat-Flash, all in this order."""


class Part(StrEnum):
    """What a published VIRST consists of."""

    BACKBONE = "backbone"
    MASK_BRANCH = "seg_model"
    FUSIONS = "fusions"
    UNUSED = "unused"


_PREFIXES: Mapping[str, Part] = {
    "model.seg_model.": Part.MASK_BRANCH,
    "model.seg_prompter.": Part.FUSIONS,
    "model.initial_seg_fusion_module.": Part.FUSIONS,
    "model.occ_predictor.": Part.UNUSED,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """Where a tensor and, if it has any, its adapters lie."""

    stored: str
    """The name in the files."""
    first: str = ""
    """That of the adapter's first factor, (rank, columns); empty where there is none."""
    second: str = ""
    """(rows, rank)"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a folder holds, by part and by published name without the wrapping of `peft`; nothing is read yet."""

    files: Repository
    parts: Mapping[Part, Mapping[str, Matrix]] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table.

        Raises:
            CheckpointError: If there is none.
        """
        table = self.parts[Part.BACKBONE].get(TABLE)
        if table is None:
            raise CheckpointError(
                f"{self.files.folder}: no tensor {TABLE}; these are not the weights of VideoChat-Flash or VIRST"
            )
        return self.files.tensors[table.stored].shape[0]

    @property
    def num_adapters(self) -> int:
        """Matrices with adapters."""
        return sum(bool(matrix.first) for part in self.parts.values() for matrix in part.values())

    def read(self, part: Part, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The tensors of a part other than the backbone, by their published names without the wrapping."""
        return dict(self.stream(part, dtype))

    def stream(
        self,
        part: Part,
        dtype: torch.dtype | None = None,
        *,
        device: torch.device | str | None = None,
        alpha: float = LORA_ALPHA,
    ) -> Iterator[tuple[str, Tensor]]:
        """Every tensor of a part, shard by shard, adapters folded in: W + alpha / rank B A, in float32.

        Args:
            dtype: What floating-point tensors are cast to, after folding; None keeps them as stored.
            device: Where they go; None leaves them where tensors are made by default.

        Raises:
            CheckpointError: For a tensor that is not finite.
        """
        place = torch.get_default_device() if device is None else device
        is_copied = bool(self.num_adapters)  # else what stays as it is would keep all matrices mapped beside the folded
        for shard in self.files.shards:
            with safe_open(shard, framework="pt") as file:
                for name, matrix in self.parts[part].items():
                    if self.files.tensors[matrix.stored].shard != shard:
                        continue
                    made = file.get_tensor(matrix.stored).to(place)
                    if matrix.first:
                        first, second = (self._one(factor).to(place) for factor in (matrix.first, matrix.second))
                        made = folded(made, first, second, alpha)
                    kind = dtype if dtype is not None and made.is_floating_point() else made.dtype
                    made = made.to(kind, copy=is_copied and not matrix.first)
                    _require_finite(matrix.stored, made, self.files)
                    yield name, made

    def _one(self, stored: str) -> Tensor:
        """A tensor by itself, whichever shard it lies in."""
        with safe_open(self.files.tensors[stored].shard, framework="pt") as file:
            return file.get_tensor(stored)


def folded(weight: Tensor, first: Tensor, second: Tensor, alpha: float = LORA_ALPHA) -> Tensor:
    """A matrix with its adapter added in: W + alpha / rank B A, summed in float32 and kept in the matrix's type."""
    return (weight.float() + alpha / first.shape[0] * (second.float() @ first.float())).to(weight.dtype)


def contents_of(files: Repository) -> Contents:
    """Sort the tensors of a folder into parts, adapters beside their matrices; names and shapes alone are looked at.

    Raises:
        CheckpointError: If an adapter lacks its matrix, its other factor or the right shape, or two tensors have one
            name once the wrapping is taken off.
    """
    plain: dict[str, str] = {}
    adapters: dict[str, dict[str, str]] = {}
    faults: list[str] = []
    for stored in files.tensors:
        found = _ADAPTER.fullmatch(stored)
        name = (found[1] if found else stored).removeprefix(WRAPPED)
        place, key = (adapters.setdefault(name, {}), found[2]) if found else (plain, _unwrapped(name))
        if key in place:
            faults.append(f"{stored} and {place[key]} are one tensor under two names")
        place[key] = stored
    matrices = {name: Matrix(stored=stored) for name, stored in plain.items()}
    for owner, factors in adapters.items():
        name = f"{owner}.weight"
        if name not in matrices:
            faults.append(f"{min(factors.values())} has no matrix {name}")
        elif factors.keys() != {"A", "B"}:
            faults.append(f"{min(factors.values())} lacks its other factor")
        else:
            matrices[name] = Matrix(stored=matrices[name].stored, first=factors["A"], second=factors["B"])
            faults += _misfit(matrices[name], files)
    if faults:
        raise CheckpointError(f"{files.folder}: the adapters do not fit; {'; '.join(_some(faults))}; fetch them again")
    parts: dict[Part, dict[str, Matrix]] = {part: {} for part in Part}
    for name, matrix in matrices.items():
        parts[_part_of(name)][name] = matrix
    return Contents(files=files, parts=parts)


def published_names(config: VideoChatConfig, text: ByteLevelText) -> dict[str, str]:
    """Every tensor of VideoChat-Flash by its published name, with ours."""
    return {published_name(ours): ours for ours in expected_shapes(config, text) if ours != ST}


def published_name(name: str) -> str:
    """The name that VideoChat-Flash has for one of our tensors."""
    for pattern, new in _RULES:
        name = re.sub(pattern, new, name)
    return name


def expected_shapes(config: VideoChatConfig, text: ByteLevelText) -> dict[str, tuple[int, ...]]:
    """Our names with their shapes, without allocating any memory."""
    with torch.device("meta"):
        model = VideoChat(config, text)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def require_fit(contents: Contents, config: VideoChatConfig, text: ByteLevelText) -> None:
    """Compare names, shapes and kinds of the headers with the backbone of these sizes.

    Raises:
        CheckpointError: Listing what is missing, unknown, of wrong shape, or no floating-point numbers.
    """
    shapes, names = expected_shapes(config, text), published_names(config, text)
    given, stored = contents.parts[Part.BACKBONE], contents.files.tensors
    wrong = [
        f"{name} is {stored[given[name].stored].shape}, expected {shapes[ours]}"
        for name, ours in names.items()
        if name in given and stored[given[name].stored].shape != shapes[ours]
    ]
    kinds = {
        "missing": sorted(names.keys() - given.keys()),
        "unknown": sorted(given.keys() - names.keys()),
        "of wrong shape": wrong,
        f"stored as other than {', '.join(DTYPES)}": [
            name for name in names if name in given and stored[given[name].stored].dtype not in DTYPES
        ],
    }
    faults = [f"{kind}: {', '.join(_some(entries))}" for kind, entries in kinds.items() if entries]
    if faults:
        raise CheckpointError(
            f"{contents.files.folder}: not the weights of this VideoChat-Flash; {'; '.join(faults)}; check that "
            "config, tokenizer and weights belong together"
        )


def to_published(
    state: Mapping[str, Tensor], st_id: int, *, layout: Layout = "plain", num_rows: int | None = None
) -> dict[str, Tensor]:
    """Tensors of a `VideoChat` by published names; the [ST] embedding goes back into its row of the table.

    Args:
        state: As the model's `state_dict` has them, with adapters beside the matrices if it was given any.
        layout: How names are written; adapters need one of the two of `peft`.
        num_rows: Cut the two tables to so many rows; the published VIRST keeps those up to the [ST] token.

    Raises:
        CheckpointError: If there are several [ST] embeddings, or adapters that the layout has no names for.
    """
    st = state[ST]
    if st.shape[0] != 1:
        raise CheckpointError(
            f"the model has {st.shape[0]} [ST] embeddings; published files have room for one that all of them share"
        )
    made: dict[str, Tensor] = {}
    owners = {name.partition(".lora_")[0] for name in state if ".lora_" in name}
    if owners and layout == "plain":
        raise CheckpointError(f"the model has {len(owners)} adapters; fold them in first, or write a layout of peft")
    for ours, value in state.items():
        if ours == ST:
            continue
        name = published_name(ours)
        if name in (TABLE, "lm_head.weight") and num_rows is not None:
            value = value[:num_rows]  # noqa: PLW2901
        if name == TABLE:
            value = value.clone()  # noqa: PLW2901
            value[st_id] = st[0].to(value.dtype)
        made[_wrapped(name, layout, owners)] = value
    return made


def _wrapped(name: str, layout: Layout, owners: set[str]) -> str:
    """A published name as a layout writes it."""
    if layout == "plain":
        return name
    plain = _unwrapped(name)
    owner, _, leaf = plain.rpartition(".")
    has_adapter = re.sub(r"^model\.", "language.", owner) in owners
    return WRAPPED + (f"{owner}.base_layer.{leaf}" if has_adapter and layout == "peft" else plain)


def _unwrapped(name: str) -> str:
    return re.sub(r"\.base_layer\.(weight|bias)$", r".\1", name)


def _part_of(name: str) -> Part:
    return next((part for prefix, part in _PREFIXES.items() if name.startswith(prefix)), Part.BACKBONE)


def _misfit(matrix: Matrix, files: Repository) -> list[str]:
    """What is wrong with the shapes of an adapter, if anything is."""
    rows, columns = (files.tensors[matrix.stored].shape + (0, 0))[:2]
    first, second = files.tensors[matrix.first].shape, files.tensors[matrix.second].shape
    if len(first) == len(second) == 2 and first == (second[1], columns) and second == (rows, first[0]):
        return []
    return [f"{matrix.first} is {first} and its other factor {second}, the matrix is {(rows, columns)}"]


def _require_finite(name: str, value: Tensor, files: Repository) -> None:
    """CheckpointError for a weight that is no number: it would make every mask empty, without a word."""
    parts = value.flatten().split(1 << 20)  # each is summed in float32, which would double a whole table
    if value.is_floating_point() and not all(bool(part.sum(dtype=torch.float32).isfinite()) for part in parts):
        stored = files.tensors[name]
        raise CheckpointError(
            f"{stored.shard}: {name} holds values that are not finite as {value.dtype}; fetch it again, or load it in "
            f"the dtype it is stored in ({stored.dtype})"
        )


def _some(entries: list[str]) -> list[str]:
    more = len(entries) - MAX_LISTED
    return entries[:MAX_LISTED] + ([f"and {more} more"] if more > 0 else [])

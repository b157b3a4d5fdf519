"""The mask branch of the SAM2 family: networks of `transformers`, called part by part so that gradients flow.

Enters: a network of `transformers` and what is particular to its family. Leaves: a `MaskBranch`. Does not know files,
sentences, or which frames are prompted.

The library's own video loop runs without gradients and takes points, boxes and masks alone. Its parts do not: each
call below is one of them, in the order in which that loop uses it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dynin.virst.branch.protocol import Choice, FrameFeatures, Gate, MaskOutput, Memory, Pointed, Recalled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_POINTER_BASE = 10000.0
_NEVER_CALLED = ("no_memory_positional_encoding", "mask_downsample", "mask_embed", "point_embed")
"""Parts that serve points and given masks alone, or nothing: no gradient ever reaches them."""


@runtime_checkable
class MemoryForm(Protocol):
    """How the memory of a frame is stored."""

    def condense(
        self, network: Any, cells: Float[Tensor, "B E I J"], position: Float[Tensor, "1 E I J"]
    ) -> tuple[Float[Tensor, "B P E"], Float[Tensor, "#B P E"]]:
        """Tokens and their position code."""
        ...

    def extra(self, num_frames: int) -> dict[str, int]:
        """What the network's memory attention wants to know besides its tokens."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class GridMemory:
    """Every cell is a token: SAM2 and the tracker of SAM3."""

    def condense(
        self, network: Any, cells: Float[Tensor, "B E I J"], position: Float[Tensor, "1 E I J"]
    ) -> tuple[Float[Tensor, "B P E"], Float[Tensor, "#B P E"]]:
        """Cells in raster order."""
        return cells.flatten(2).transpose(1, 2), position.flatten(2).transpose(1, 2)

    def extra(self, num_frames: int) -> dict[str, int]:
        """Nothing."""
        return {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What is particular to the networks of one model type."""

    model_type: str
    """As `config.json` says it."""
    class_name: str
    """In `transformers`."""
    config_name: str
    memory: MemoryForm
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Of each colour, in [0, 1]."""
    std: tuple[float, float, float] = IMAGENET_STD


SAM2 = Family(model_type="sam2_video", class_name="Sam2VideoModel", config_name="Sam2VideoConfig", memory=GridMemory())


class Sam2Branch(nn.Module):
    """A `MaskBranch` made of the parts of a network of the SAM2 family.

    Parity:
        Where one mask is asked for, it is that of the single-mask token, always. Published SAM2 replaces it by another
        token's in evaluation where it is unstable under its threshold; training and inference would then disagree.
    """

    network: Any

    def __init__(self, network: Any, family: Family = SAM2) -> None:
        """`network` as `transformers` builds it, of the class that the family names."""
        super().__init__()
        self.network = network
        self.family = family
        self.register_buffer("_places", None, persistent=False)
        self.network.mask_decoder.dynamic_multimask_via_stability = False
        for name in _NEVER_CALLED:
            home = self.network if hasattr(self.network, name) else self.network.prompt_encoder
            getattr(home, name).requires_grad_(False)

    @torch.no_grad()
    def settle(self) -> None:
        """Make the code of places once; for a network that learns no more."""
        self._places = self.network.get_image_wide_positional_embeddings()

    @property
    def width(self) -> int:
        """Width of prompt tokens, cells and pointers."""
        return self.network.hidden_dim

    @property
    def image_size(self) -> tuple[int, int]:
        """Rows and columns in pixels of the frames it takes."""
        side = self.network.prompt_encoder.input_image_size
        return (side, side)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of cells."""
        rows, columns = self.network.prompt_encoder.image_embedding_size
        return (rows, columns)

    @property
    def mask_size(self) -> tuple[int, int]:
        """Rows and columns of mask logits."""
        rows, columns = self.network.prompt_encoder.mask_input_size
        return (rows, columns)

    @property
    def num_recent(self) -> int:
        """Most recent frames without a prompt that can be told apart in time."""
        return self.network.num_maskmem - 1

    @property
    def max_pointers(self) -> int:
        """Frames over which pointers reach back."""
        return self.network.config.max_object_pointers_in_encoder

    def encode(self, frames: Float[Tensor, "B 3 Y X"], *, chunk: int = 8) -> FrameFeatures:
        """Features of RGB frames in [-1, 1] of `image_size`, `chunk` frames at a time.

        Raises:
            ValueError: If the frames are of another size, or there is none.
        """
        size = tuple(frames.shape[2:])
        if size != self.image_size or not len(frames):
            raise ValueError(
                f"{len(frames)} frames of {size[1]} x {size[0]} px were given, the mask branch takes at least one of "
                f"{self.image_size[1]} x {self.image_size[0]} px; fit them first"
            )
        mean = frames.new_tensor(self.family.mean)[:, None, None]
        std = frames.new_tensor(self.family.std)[:, None, None]
        parts = [self._encode((part * 0.5 + 0.5 - mean) / std) for part in frames.split(chunk)]
        levels = [torch.cat(level) for level in zip(*(found for found, _ in parts), strict=True)]
        return FrameFeatures(cells=levels[-1], position=parts[0][1], fine=tuple(levels[:-1]))

    def _encode(self, frames: Float[Tensor, "B 3 Y X"]) -> tuple[list[Tensor], Float[Tensor, "1 D I J"]]:
        """Levels, finest first, and the position code of the last."""
        found = self.network.get_image_features(frames.to(self.network.no_memory_embedding.dtype), return_dict=True)
        sizes = [(size[0], size[1]) for size in self.network.backbone_feature_sizes]
        levels = [
            level.permute(1, 2, 0).unflatten(2, size)
            for level, size in zip(found.fpn_hidden_states, sizes, strict=True)
        ]
        return levels, found.fpn_position_encoding[-1].permute(1, 2, 0).unflatten(2, sizes[-1])[:1]

    def place(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N D"]:
        """The code by which the decoder knows places: columns and rows, in shares of the frame's sides."""
        codes: Tensor = self.network.shared_image_embedding(points)
        return codes

    def without_memory(self, features: FrameFeatures) -> Float[Tensor, "B D I J"]:
        """Cells with the learned mark of a frame that remembers nothing."""
        return features.cells + self.network.no_memory_embedding.reshape(1, -1, 1, 1)

    def attend(
        self, features: FrameFeatures, recalled: Sequence[Recalled], pointers: Sequence[Pointed], *, max_pointers: int
    ) -> Float[Tensor, "B D I J"]:
        """Cells after a look at memories and pointers.

        Row `r - 1` of the learned temporal codes marks a frame `r` steps back, the last row a prompted frame.

        Raises:
            ValueError: If there is no memory, or one lies further back than there are codes for.
        """
        if not recalled or not all(0 <= each.steps_back <= self.num_recent for each in recalled):
            raise ValueError(
                f"memories {[each.steps_back for each in recalled]} steps back were given, expected at least one, at "
                f"most {self.num_recent} steps back"
            )
        cells = features.cells.flatten(2).permute(2, 0, 1)  # P B D, as the library wants it
        num_rows = cells.shape[1]
        rows = self.network.memory_temporal_positional_encoding
        tokens = [each.memory.cells.to(cells.dtype) for each in recalled]
        places = [(each.memory.position + rows[each.steps_back - 1]).expand(num_rows, -1, -1) for each in recalled]
        num_pointer_tokens = 0
        if pointers:
            pointer_tokens, pointer_places = self._pointer_tokens(pointers, max_pointers)
            num_pointer_tokens = pointer_tokens.shape[1]
            tokens.append(pointer_tokens)
            places.append(pointer_places)
        attended = self.network.memory_attention(
            current_vision_features=cells,
            current_vision_position_embeddings=features.position.flatten(2).permute(2, 0, 1),
            memory=torch.cat(tokens, dim=1).transpose(0, 1),
            memory_posision_embeddings=torch.cat(places, dim=1).transpose(0, 1),
            num_object_pointer_tokens=num_pointer_tokens,
            **self.family.memory.extra(len(recalled)),
        )
        return attended.reshape(num_rows, -1, cells.shape[2]).transpose(1, 2).unflatten(2, self.grid)

    def _pointer_tokens(
        self, pointers: Sequence[Pointed], max_pointers: int
    ) -> tuple[Float[Tensor, "B P E"], Float[Tensor, "B P E"]]:
        """Pointers cut into tokens of the memory's width, each with the code of its pointer's distance."""
        stacked = torch.stack([each.pointer for each in pointers], dim=1)  # B n D
        num_rows, count, width = stacked.shape
        memory_width = self.network.mem_dim
        num_parts = max(1, width // memory_width)
        tokens = stacked.reshape(num_rows, count * num_parts, memory_width)
        if not self.network.config.enable_temporal_pos_encoding_for_object_pointers:
            return tokens, torch.zeros_like(tokens)
        distances = stacked.new_tensor([each.distance for each in pointers]) / max(1, max_pointers - 1)
        code = self.network.temporal_positional_encoding_projection_layer(_sine_code(distances, width))  # n E
        return tokens, code.repeat_interleave(num_parts, dim=0).expand(num_rows, -1, -1)

    def decode(
        self,
        cells: Float[Tensor, "B D I J"],
        features: FrameFeatures,
        prompts: Float[Tensor, "B N D"] | None,
        *,
        choice: Choice = "single",
        gate: Gate = "hard",
    ) -> MaskOutput:
        """Masks from cells and prompt tokens; without prompts an empty point stands in their place, as published.

        The library's code of one is two tokens of what is no point: the point's own, and that which closes a list.
        """
        num_rows = cells.shape[0]
        encoder = self.network.prompt_encoder
        nothing = encoder.not_a_point_embed.weight.expand(num_rows, 2, -1)
        sparse = (nothing if prompts is None else prompts)[:, None]
        places = self.network.get_image_wide_positional_embeddings() if self._places is None else self._places
        masks, ious, tokens, scores = self.network.mask_decoder(
            image_embeddings=cells,
            image_positional_embeddings=places.expand(num_rows, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(cells),
            multimask_output=choice == "best",
            high_resolution_features=list(features.fine),
        )
        masks, ious, tokens, score = masks[:, 0], ious[:, 0], tokens[:, 0], scores[:, 0, 0]
        chosen = ious.argmax(dim=1)
        row = torch.arange(num_rows, device=cells.device)
        presence = (_presence(score, gate))[:, None]
        pointer = self.network.object_pointer_proj(tokens[row, chosen])
        return MaskOutput(
            mask_logits=masks[row, chosen],
            predicted_iou=ious[row, chosen],
            object_score=score,
            pointer=presence * pointer + (1 - presence) * self.network.no_object_pointer,
            candidate_logits=masks,
            candidate_iou=ious,
            chosen=chosen,
        )

    def remember(
        self, features: FrameFeatures, output: MaskOutput, *, gate: Gate = "hard", is_binary: bool = False
    ) -> Memory:
        """Encode a frame with its mask, enlarged to the frame's size and brought to what the memory encoder shrinks."""
        config = self.network.config
        stride = config.mask_downsampler_total_stride
        logits = F.interpolate(
            output.gated_logits(gate)[:, None], size=self.image_size, mode="bilinear", align_corners=False
        )
        size = (self.grid[0] * stride, self.grid[1] * stride)
        if size != self.image_size:
            wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # a CPU has no such kernel for 16 bits
            logits = F.interpolate(wide, size=size, mode="bilinear", align_corners=False, antialias=True).to(
                logits.dtype
            )
        mask = (logits > 0).to(logits.dtype) if is_binary else logits.sigmoid()
        cells, position = self.network.memory_encoder(
            features.cells, mask * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        )
        absent = self.network.occlusion_spatial_embedding_parameter
        if absent is not None:
            presence = _presence(output.object_score, gate)[:, None, None, None]
            cells = cells + (1 - presence) * absent[..., None, None]
        tokens, places = self.family.memory.condense(self.network, cells, position[:1].to(cells.dtype))
        return Memory(cells=tokens, position=places, pointer=output.pointer)


def _presence(score: Float[Tensor, " B"], gate: Gate) -> Float[Tensor, " B"]:
    return (score > 0).to(score.dtype) if gate == "hard" else score.sigmoid()


def _sine_code(distances: Float[Tensor, " n"], width: int) -> Float[Tensor, "n D"]:
    """Sines of the distances, then cosines, at frequencies that fall from 1 to 1/10000, each of them twice."""
    pair = torch.arange(width // 2, device=distances.device) // 2
    angles = distances.float()[:, None] / _POINTER_BASE ** (2 * pair / (width // 2))
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(distances.dtype)

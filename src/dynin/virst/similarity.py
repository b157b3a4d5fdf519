"""How like a sentence frames are, by an image-text model: what anchors by text similarity are chosen from.

Enters: a folder with a CLIP of `transformers`; frames in [-1, 1], a sentence. Leaves: one number for each frame. Does
not know anchors, or where frames come from. One class for every size: the published ones and small ones trained on own
data differ in their folders alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from dynin.checkpoint import resolve
from dynin.errors import CheckpointError, RequestError
from dynin.tokenizers.library import networks

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of each colour, in [0, 1], as CLIP was trained."""
_KINDS = {"clip": networks.Kind(class_name="CLIPModel")}
_TOKENIZER = "tokenizer.json"


class TextLikeness:
    """A CLIP that compares frames with sentences."""

    def __init__(self, network: Any, tokenizer: Tokenizer) -> None:
        """`network` is a `CLIPModel` of `transformers`."""
        self.network = network
        self.tokenizer = tokenizer
        self.tokenizer.enable_truncation(network.config.text_config.max_position_embeddings)
        self.size_px: int = network.config.vision_config.image_size

    def __call__(self, frames: Sequence[Float[Tensor, "3 Y X"]], sentence: str) -> tuple[float, ...]:
        """Cosine of the angle between each frame and the sentence, in [-1, 1].

        Frames are cut to their centre square.

        Raises:
            RequestError: If the sentence is empty or there is no frame.
        """
        if not sentence.strip() or not frames:
            raise RequestError(
                f"{len(frames)} frames were to be compared with the sentence {sentence!r}; expected some of each"
            )
        return tuple((self.of_frames(frames) @ self.of_sentence(sentence)).tolist())

    @torch.no_grad()
    def of_frames(self, frames: Sequence[Float[Tensor, "3 Y X"]]) -> Float[Tensor, "T D"]:
        """Unit vectors of frames in [-1, 1]; they serve for any number of sentences."""
        weight = next(self.network.parameters())
        pixels = [fitted(frame.to(weight.device, torch.float32), self.size_px) for frame in frames]
        return image_vectors(self.network, torch.stack(pixels))

    @torch.no_grad()
    def of_sentence(self, sentence: str) -> Float[Tensor, " D"]:
        """The unit vector of a sentence."""
        ids = torch.tensor([self.tokenizer.encode(sentence).ids], device=next(self.network.parameters()).device)
        return text_vectors(self.network, ids)[0]


def image_vectors(network: Any, pixels: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B D"]:
    """Unit vectors of frames in [-1, 1], of the network's size; in float32."""
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, STD))
    colours = ((pixels * 0.5 + 0.5 - mean) / std).to(network.visual_projection.weight.dtype)
    pooled = network.vision_model(pixel_values=colours).pooler_output
    return F.normalize(network.visual_projection(pooled).float())


def text_vectors(network: Any, ids: Int[Tensor, "B S"]) -> Float[Tensor, "B D"]:
    """Unit vectors of sentences; what follows an end mark is not seen. In float32."""
    pooled = network.text_model(input_ids=ids).pooler_output
    return F.normalize(network.text_projection(pooled).float())


def fitted(frame: Float[Tensor, "3 Y X"], size_px: int) -> Float[Tensor, "3 y x"]:
    """The centre square of a frame in [-1, 1], at a size."""
    height, width = frame.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[None, :, top : top + side, left : left + side]
    if side == size_px:
        return square[0]
    pixels = F.interpolate(square, size=(size_px, size_px), mode="bicubic", antialias=True, align_corners=False)[0]
    return pixels.clamp(-1, 1)


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> TextLikeness:
    """The CLIP in a folder or under a hub id, on the CPU, frozen.

    Raises:
        CheckpointError: If there is no CLIP, no tokenizer.json, or weights do not fit.
        RequestError: If the package transformers is missing.
    """
    network = networks.load(folder, _KINDS, dtype)
    path = resolve(folder) / _TOKENIZER
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; sentences cannot be read without it; fetch it too")
    return TextLikeness(network, Tokenizer.from_file(str(path)))

"""The tokenizers of a model as one value: any modality to what a sequence carries, and back.

Enters: text, pictures (3, Y, X), videos and sounds of any size, length and rate. Leaves: text as it is, codes of the
others; and values again. Does not know ids, tasks or files.
"""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.config import suggest
from dynin.errors import MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio, require_sound, resample
from dynin.media.image import fit_square
from dynin.media.video import Video
from dynin.tokenizers.deferred import DeferredImage, DeferredSpeech
from dynin.tokenizers.protocol import ImageTokenizer, SpeechTokenizer, TextTokenizer
from dynin.tokenizers.video import VideoTokenizer
from dynin.types import Modality

Value = str | Tensor | Video | Audio
"""Text, a picture in [-1, 1], a video or a sound."""
MOST_LISTED = 20
"""Styles that a message names one by one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tokenizers:
    """Text, pictures, videos and speech."""

    text: TextTokenizer
    image: ImageTokenizer
    video: VideoTokenizer
    speech: SpeechTokenizer

    def encode(self, modality: Modality, value: Value, size_px: int | None = None) -> str | Int[Tensor, " N"]:
        """A value to what a sequence carries: text stays text, everything else becomes codes on the CPU.

        Pictures and frames are cut to a square, sounds are resampled.

        Args:
            size_px: Side of the square; None takes the tokenizer's.

        Raises:
            RequestError: If the value is not of the modality.
            MediaError: If a picture is smaller than one cell, or a sound is silent or too short.
        """
        if modality == Modality.TEXT and isinstance(value, str):
            return value
        if modality == Modality.IMAGE and isinstance(value, Tensor):
            return self.image.encode(self.fit(value, size_px)[None])[0].cpu()
        if modality == Modality.VIDEO and isinstance(value, Video):
            self._require_cells(value.frames[0])
            return self.video.encode(value, size_px).cpu()
        if modality == Modality.SPEECH and isinstance(value, Audio):
            return self.speech.encode(resample(require_sound(value), self.speech.input_rate_hz)).cpu()
        raise RequestError(f"{type(value).__name__} was given as {modality}; give text, a picture, a video or a sound")

    def decode(
        self,
        modality: Modality,
        codes: Int[Tensor, " N"],
        generator: torch.Generator | None = None,
        style: str | None = None,
    ) -> Value:
        """Text ids or codes to a value on the CPU; the codes of a picture fill a square.

        Args:
            generator: For speech tokenizers that draw the fine structure of a sound.
            style: Of the voice; None takes the speech tokenizer's own choice.
        Raises:
            VocabularyError: If the codes of a picture fill no square.
            RequestError: If the speech tokenizer has no such style.
        """
        codes = codes.cpu()
        match modality:
            case Modality.TEXT:
                return self.text.decode(codes.tolist())
            case Modality.IMAGE:
                side = math.isqrt(codes.numel())
                if side * side != codes.numel():
                    raise VocabularyError(f"{codes.numel()} codes fill no square picture; expected a square number")
                return self.image.decode(codes[None], (side, side))[0].float().cpu()
            case Modality.VIDEO:
                return self.video.decode(codes)
            case Modality.SPEECH if codes.numel() == 0:
                return Audio(samples=torch.zeros(0), rate_hz=self.speech.output_rate_hz)
            case Modality.SPEECH:
                return self.speech.decode(codes, style, generator)

    def fit(self, pixels: Tensor, size_px: int | None = None) -> Tensor:
        """The square copy of a picture that is encoded; MediaError for a picture smaller than one cell."""
        self._require_cells(pixels)
        return fit_square(pixels, size_px or self.image.image_size)

    def codebook_size(self, modality: Modality) -> int:
        """How many ids or codes, from 0, a modality has; a vocabulary's range may be larger."""
        match modality:
            case Modality.TEXT:
                return self.text.size
            case Modality.SPEECH:
                return self.speech.codebook_size
            case _:
                return self.image.codebook_size

    def prepare(self, modalities: Iterable[Modality]) -> None:
        """Read the tokenizers of these modalities that are still to be read; CheckpointError if one cannot be read."""
        wanted = set(modalities)
        if wanted & {Modality.IMAGE, Modality.VIDEO} and isinstance(self.image, DeferredImage):
            self.image.inner()
        if Modality.SPEECH in wanted and isinstance(self.speech, DeferredSpeech):
            self.speech.inner()

    def require_style(self, style: str) -> None:
        """RequestError that lists the styles, or the nearest of many, for one that the tokenizer does not have."""
        styles = (self.speech.inner() if isinstance(self.speech, DeferredSpeech) else self.speech).styles
        if style in styles:
            return
        if len(styles) > MOST_LISTED:
            near = difflib.get_close_matches(style, styles, n=3, cutoff=0.0)
            raise RequestError(f"unknown style {style!r}, one of {len(styles)}; the nearest are {', '.join(near)}")
        raise RequestError(f"unknown style {style!r}{suggest(style, styles)}")

    def fingerprint(self, name: str) -> str:
        """A hash of the tokenizer of text, image or speech."""
        tokenizer: TextTokenizer | ImageTokenizer | SpeechTokenizer = getattr(self, name)
        return tokenizer.fingerprint()

    def fingerprints(self) -> dict[str, str]:
        """A hash of each tokenizer."""
        return {name: self.fingerprint(name) for name in ("text", "image", "speech")}

    def _require_cells(self, pixels: Tensor) -> None:
        height, width = pixels.shape[-2:]
        if min(height, width) < self.image.downsample:
            raise MediaError(
                f"the picture has {width} x {height} pixels, expected at least {self.image.downsample} on each side; "
                "give a larger one"
            )

"""Audio codecs of the package `transformers` behind the speech protocol: Mimi, DAC, EnCodec, X-Codec.

Enters: mono sound at the codec's own rate. Leaves: one row of codes, and sound again. Does not know how several
codebooks become one row (codebooks.py) or how networks are read (networks.py).

    sound --> whole frames --> network --> codes (K, T) --> one row of codes --> codes (K, T) --> network --> sound
    T                          1 1 T       K codebooks     N

A codec keeps the voice of a sound, so there is one style only, and nothing is drawn: equal codes give equal sounds.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import pad

from dynin.errors import CheckpointError, ConfigError, MediaError, RequestError
from dynin.media.audio import Audio, require_sound
from dynin.tokenizers.fingerprint import fingerprint
from dynin.tokenizers.library import networks
from dynin.tokenizers.library.codebooks import Codebooks, Layout
from dynin.tokenizers.library.networks import Kind

STYLE = "as recorded"
"""The only style: the voice that was encoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Under which names the configs of one model type tell their sizes."""

    class_name: str
    rate: str = "sampling_rate"
    """Samples per second."""
    hop: str = "hop_length"
    """Samples of a frame."""
    num_codebooks: str = "num_quantizers"
    has_chunks: bool = False
    """Codes come in chunks, each with a loudness of its own or none; only sounds of one chunk without it are used."""


FAMILIES = {
    "dac": Family(class_name="DacModel", num_codebooks="n_codebooks"),
    "encodec": Family(class_name="EncodecModel", has_chunks=True),
    "mimi": Family(class_name="MimiModel", hop="frame_size"),
    "xcodec": Family(class_name="XcodecModel", rate="sample_rate"),
}


class LibrarySpeechTokenizer(nn.Module):
    """A codec of `transformers`; meets `tokenizers.protocol.SpeechTokenizer`."""

    def __init__(self, network: Any, *, layout: Layout | None = None, num_codebooks: int | None = None) -> None:
        """Wrap a network.

        Args:
            layout: How several codebooks become one row of codes, see `codebooks.Layout`; needed where there are
                several. With `first`, decoding uses one codebook.
            num_codebooks: How many codebooks `interleave` keeps, from the first; None keeps all.

        Raises:
            ConfigError: If the network is no known codec, or the codebooks cannot be chosen so.
        """
        super().__init__()
        config = network.config
        if config.model_type not in FAMILIES:
            raise ConfigError(
                f"a network of type {config.model_type!r} was given, expected one of {', '.join(sorted(FAMILIES))}"
            )
        family = FAMILIES[config.model_type]
        if family.has_chunks and (config.normalize or config.chunk_length_s is not None):
            raise ConfigError(
                "this codec cuts sounds into chunks and keeps the loudness of each beside the codes, so that codes "
                "alone are no sound; use one with normalize false and chunk_length_s null, such as encodec_24khz"
            )
        self.network = network.eval().requires_grad_(False)
        self.family = family
        self.codebooks = Codebooks.choose(
            getattr(config, family.num_codebooks), config.codebook_size, layout, num_codebooks
        )
        self.num_channels = getattr(config, "audio_channels", 1)
        self.samples_per_frame = int(getattr(config, family.hop))
        self.codebook_size = self.codebooks.total
        self.input_rate_hz = self.output_rate_hz = int(getattr(config, family.rate))
        self.frame_rate_hz = self.input_rate_hz / self.samples_per_frame * self.codebooks.count
        self.styles: tuple[str, ...] = (STYLE,)
        self.default_style = STYLE

    @classmethod
    def load(
        cls,
        place: str | os.PathLike[str],
        *,
        layout: Layout | None = None,
        num_codebooks: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "LibrarySpeechTokenizer":
        """The codec in a folder or under an id on the model hub; arguments as above, errors also of `networks.load`."""
        kinds = {name: Kind(class_name=family.class_name) for name, family in FAMILIES.items()}
        return cls(networks.load(place, kinds, dtype), layout=layout, num_codebooks=num_codebooks)

    @torch.no_grad()
    def encode(self, audio: Audio) -> Int[Tensor, " N"]:
        """A sound at `input_rate_hz` to codes, one of each codebook in use a frame; the last frame ends in silence.

        Raises:
            MediaError: If the rate is another, or the sound is too short, silent or not finite.
            CheckpointError: If the network makes another number of frames than its config says.
        """
        if audio.rate_hz != self.input_rate_hz:
            raise MediaError(
                f"the speech tokenizer needs {self.input_rate_hz} Hz, received {audio.rate_hz}; "
                "pass the sound through media.audio.resample"
            )
        samples = require_sound(audio).samples
        if not bool(samples.isfinite().all()):
            raise MediaError(
                "the sound holds samples that are not finite, expected values in [-1, 1]; check its source"
            )
        num_frames = -(-len(samples) // self.samples_per_frame)
        whole = pad(samples, (0, num_frames * self.samples_per_frame - len(samples)))
        like = next(self.network.parameters())
        waves = whole.to(like.device, like.dtype).expand(1, self.num_channels, -1)
        if self.family.has_chunks:
            codes = self.network.encode(waves, bandwidth=self.network.config.target_bandwidths[-1]).audio_codes[0, 0]
        else:
            codes = self.network.encode(waves).audio_codes[0]  # K T
        if codes.shape[-1] != num_frames:
            raise CheckpointError(
                f"the codec made {codes.shape[-1]} frames of {len(whole)} samples, expected {num_frames} of "
                f"{self.samples_per_frame} samples each; its config does not belong to its weights"
            )
        return self.codebooks.join(codes).cpu()

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, " N"], style: str | None = None, generator: torch.Generator | None = None
    ) -> Audio:
        """Codes to a sound at `output_rate_hz`, as long as its frames; `generator` is not used.

        Raises:
            VocabularyError: If a code is outside the codebook or at a place of another one, or a frame is incomplete.
            RequestError: If the style is another than `STYLE`.
        """
        if style not in (None, STYLE):
            raise RequestError(f"unknown voice {style!r}; a codec keeps the voice it encoded, leave the style out")
        like = next(self.network.parameters())
        frames = self.codebooks.split(codes).to(like.device)[None]  # 1 K T
        if self.family.has_chunks:
            waves = self.network.decode(audio_codes=frames[None], audio_scales=[None]).audio_values
        else:
            waves = self.network.decode(audio_codes=frames).audio_values
        samples = waves.reshape(-1, waves.shape[-1]).float().mean(0)  # of the channels
        num_samples = frames.shape[-1] * self.samples_per_frame
        samples = pad(samples[:num_samples], (0, max(0, num_samples - len(samples))))
        return Audio(samples=samples.clamp(-1, 1).cpu(), rate_hz=self.output_rate_hz)

    def fingerprint(self) -> str:
        """A hash of the codec's settings, its weights, the dtype they work in, and the codebooks in use."""
        config = networks.settings(self.network)
        kind, count = self.network.config.model_type, self.codebooks.count
        return fingerprint({"kind": kind, "config": config, "codebooks": count}, self.network.state_dict())

    def _apply(self, *arguments: Any, **named: Any) -> "LibrarySpeechTokenizer":
        """Move to another device or dtype; codebooks that Mimi derives once from its weights are derived anew."""
        super()._apply(*arguments, **named)
        for module in self.network.modules():
            if getattr(module, "_embed", None) is not None:
                module._embed = None
        return self

"""Sizes of the published speech tokenizer, its codebook and its styles.

Enters: nothing. Leaves: `EmovaConfig`; its defaults are the published tokenizer, narrow ones are for tests. Does not
know networks or files.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

from dynin.errors import ConfigError

NUM_CONVOLUTIONS = 5
DEFAULT_STYLE = "gender-female_emotion-neutral_speed-normal_pitch-normal"
_EMOTIONS = ("angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")


def style_name(gender: str, emotion: str, speed: str, pitch: str) -> str:
    """How a style is written."""
    return f"gender-{gender}_emotion-{emotion}_speed-{speed}_pitch-{pitch}"


def published_styles() -> dict[str, int]:
    """The 126 published styles and their rows, in the order in which they were published."""
    parts = (("female", "male"), _EMOTIONS, ("fast", "normal", "slow"), ("high", "low", "normal"))
    return {style_name(*words): row for row, words in enumerate(product(*parts))}


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformerSizes:
    """A transformer over time; its width is that of the convolution before it."""

    num_layers: int
    num_heads: int
    mlp_dim: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSizes:
    """The network from mel energies to latents."""

    widths: tuple[int, ...] = (384, 512, 512, 1536, 768)
    """Channels after each convolution; a transformer follows the third and the fifth."""
    lower: TransformerSizes = field(default_factory=lambda: TransformerSizes(num_layers=2, num_heads=8, mlp_dim=2048))
    upper: TransformerSizes = field(default_factory=lambda: TransformerSizes(num_layers=10, num_heads=12, mlp_dim=3072))
    position_kernel: int = 128
    """Width of the convolution that tells a transformer positions."""
    position_groups: int = 16

    def __post_init__(self) -> None:
        """Check the number of convolutions."""
        if len(self.widths) != NUM_CONVOLUTIONS:
            raise ConfigError(f"widths has {len(self.widths)} entries; give one for each of {NUM_CONVOLUTIONS}")


@dataclass(frozen=True, kw_only=True, slots=True)
class VocoderSizes:
    """The network from codes and a style to a sound."""

    dim: int = 192
    mlp_dim: int = 768
    num_layers: int = 6
    num_heads: int = 2
    style_dim: int = 256
    upsample_dim: int = 512
    """Channels before the first upsampling, each of which halves them."""
    upsample_rates: tuple[int, ...] = (8, 8, 2, 2)
    upsample_kernels: tuple[int, ...] = (16, 16, 4, 4)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[int, ...] = (1, 3, 5)
    num_spectrum_bins: int = 513
    """Of the posterior and reference encoders, which only the published training used."""
    num_speakers: int = 1344
    """Likewise."""
    noise_scale: float = 0.667
    """How much of the fine structure is drawn; 0 draws nothing."""
    duration_noise_scale: float = 0.8
    """Likewise for how long each code is held."""
    window_frames: int = 1024
    """Frames that become samples at once; bounds memory and changes nothing but rounding."""

    def __post_init__(self) -> None:
        """Check what the layers need to fit together."""
        if len(self.upsample_rates) != len(self.upsample_kernels):
            raise ConfigError("upsample_rates and upsample_kernels differ in length; give one kernel for each rate")
        if self.window_frames < 1:
            raise ConfigError(f"window_frames is {self.window_frames}; give at least 1")

    @property
    def hop(self) -> int:
        """Samples that one frame becomes."""
        return math.prod(self.upsample_rates)


@dataclass(frozen=True, kw_only=True, slots=True)
class EmovaConfig:
    """The tokenizer; the defaults are the published one."""

    levels: tuple[int, ...] = (8, 8, 8, 8)
    """Levels of each quantized coordinate; the codebook has their product."""
    longest_s: int = 30
    """Seconds of sound encoded in one piece; a longer sound is split."""
    encoder: EncoderSizes = field(default_factory=EncoderSizes)
    vocoder: VocoderSizes = field(default_factory=VocoderSizes)
    num_styles: int = 126
    """Rows of the style table."""
    style_rows: Mapping[str, int] = field(default_factory=published_styles)
    """The row of each style by name."""
    default_style: str = DEFAULT_STYLE
    num_phones: int = 241
    """Of a head that recognises phones; its weights are kept, tokenizing does not use them."""
    phone_dim: int = 512
    """Likewise."""

    def __post_init__(self) -> None:
        """Check the levels and the styles."""
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"levels must be at least 2 each, received {self.levels}")
        if self.longest_s < 2:
            raise ConfigError(f"longest_s is {self.longest_s}; give at least 2 seconds")
        wrong = sorted(name for name, row in self.style_rows.items() if not 0 <= row < self.num_styles)
        if wrong:
            raise ConfigError(
                f"style {wrong[0]!r} is row {self.style_rows[wrong[0]]} of a table of {self.num_styles} rows; "
                "number the styles from 0"
            )
        if self.default_style not in self.style_rows:
            raise ConfigError(
                f"the default style {self.default_style!r} is not among the {len(self.style_rows)} styles"
            )

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return math.prod(self.levels)

"""The embedded speech tokenizer: one content code per 40 ms, spoken again in a chosen style.

Enters: mono sound at 16 kHz, or codes and the name of a style. Leaves: codes, or mono sound at 16 kHz.
Does not know text, ids or files. The encoder removes loudness and the average spectrum of the recording, so that codes
carry what is said and when; the decoder adds a voice that it has learnt (a style).

    sound -> log-mel -> convolutions -> finite scalar quantizer -> code
    code, style -> convolutions -> magnitudes -> Griffin-Lim -> sound
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dynin.errors import ConfigError, MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio
from dynin.tokenizers.small.spectrum import SpectrumConfig, griffin_lim, log_mel, magnitudes, mel_filter_bank

FRAMES_PER_CODE = 4
"""Spectrogram frames that one code stands for: two halvings of the frame rate."""
LOUDNESS = 0.08
"""Root mean square that every sound is brought to before it is analysed, and that decoded sounds have."""
QUIET = 1e-4
"""Root mean square below which a sound is silence and is not amplified further."""
ACTIVE_RANGE = 4.0
"""Frames whose mean log-mel is within this of the loudest frame count for the average spectrum."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SpeechCodecConfig:
    """Sizes of the speech codec, its codebook and its styles."""

    styles: tuple[str, ...]
    default_style: str
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Levels of each quantized coordinate; the codebook has their product."""
    encoder_dim: int = 192
    encoder_layers: int = 2
    decoder_dim: int = 256
    decoder_layers: int = 3
    frame_dim: int = 128
    """Width of the decoder's last layers, which run at the frame rate."""
    frame_layers: int = 2
    style_dim: int = 32
    sharpen: float = 1.0
    """Power of the magnitudes before phases are estimated; above 1 undoes some of the training loss's averaging."""
    spectrum: SpectrumConfig = field(default_factory=SpectrumConfig)

    def __post_init__(self) -> None:
        """Check the styles and the levels."""
        if self.default_style not in self.styles:
            raise ConfigError(f"default style {self.default_style!r} is not among the styles {self.styles}")
        if not self.levels or min(self.levels) < 2:
            raise ConfigError(f"levels must be at least 2 each, received {self.levels}")

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return math.prod(self.levels)

    @property
    def samples_per_code(self) -> int:
        """Samples that one code stands for."""
        return self.spectrum.hop * FRAMES_PER_CODE

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "SpeechCodecConfig":
        """The inverse of `dataclasses.asdict` after a trip through JSON; ConfigError for unknown or missing fields."""
        try:
            fields = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
            fields["spectrum"] = SpectrumConfig(**fields["spectrum"])  # type: ignore[arg-type]
            return cls(**fields)  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise ConfigError(f"this is no configuration of the speech codec: {error}") from error


class FiniteScalarQuantizer(nn.Module):
    """Each coordinate is bounded and rounded to one of a few levels; gradients pass straight through.

    Source: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", ICLR 2024 (arXiv:2309.15505).
    """

    sizes: Tensor
    strides: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        """A quantizer without weights."""
        super().__init__()
        sizes = torch.tensor(levels)
        self.codebook_size = math.prod(levels)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("strides", torch.cumprod(torch.tensor([1, *levels[:-1]]), dim=0), persistent=False)

    def forward(self, latents: Float[Tensor, "B L N"]) -> Float[Tensor, "B L N"]:
        """Latents to quantized values in [-1, 1]."""
        half = (self.sizes[:, None] - 1) / 2
        position = (torch.tanh(latents) + 1) * half  # 0 .. level - 1
        rounded = position + (position.round() - position).detach()
        return rounded / half - 1

    def to_codes(self, values: Float[Tensor, "B L N"]) -> Int[Tensor, "B N"]:
        """Quantized values to codes."""
        digits = ((values + 1) * (self.sizes[:, None] - 1) / 2).round().long()
        return (digits * self.strides[:, None]).sum(dim=1)

    def to_values(self, codes: Int[Tensor, "B N"]) -> Float[Tensor, "B L N"]:
        """Codes to quantized values."""
        digits = (codes[:, None] // self.strides[:, None]) % self.sizes[:, None]
        return digits * 2 / (self.sizes[:, None] - 1) - 1


class ResidualBlock(nn.Module):
    """Normalise, convolve over time, mix channels, add; optionally shifted and scaled by a style."""

    def __init__(self, dim: int, kernel: int, style_dim: int = 0) -> None:
        """`kernel` is odd; no style when `style_dim` is 0."""
        super().__init__()
        self.norm = nn.Parameter(torch.ones(dim, 1))
        self.conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)
        self.mix = nn.Conv1d(dim, dim, 1)
        self.style = nn.Linear(style_dim, 2 * dim) if style_dim else None

    def forward(
        self, hidden: Float[Tensor, "B D K"], inside: Float[Tensor, "B 1 K"], style: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B D K"]:
        """`inside` is 1 where there is sound and 0 in the padding, which stays zero."""
        normed = _unit_scale(hidden) * self.norm
        if self.style is not None and style is not None:
            scale, shift = self.style(style)[:, :, None].chunk(2, dim=1)
            normed = normed * (1 + scale) + shift
        update = self.mix(nn.functional.gelu(self.conv(normed * inside)))
        return (hidden + update) * inside


class SpeechEncoder(nn.Module):
    """Log-mel frames to latents at the code rate."""

    def __init__(self, config: SpeechCodecConfig) -> None:
        """Two strided convolutions with residual blocks between and after."""
        super().__init__()
        dim = config.encoder_dim
        self.stem = nn.Conv1d(config.spectrum.mel_bins, config.frame_dim, 5, padding=2)
        self.down_first = nn.Conv1d(config.frame_dim, dim, 4, stride=2, padding=1)
        self.middle = ResidualBlock(dim, 3)
        self.down_second = nn.Conv1d(dim, dim, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(dim, 3) for _ in range(config.encoder_layers))
        self.out = nn.Conv1d(dim, len(config.levels), 1)

    def forward(self, mel: Float[Tensor, "B M K"], inside: Float[Tensor, "B 1 K"]) -> Float[Tensor, "B L N"]:
        """K frames, a multiple of 4, to K / 4 latents."""
        half, quarter = inside[:, :, ::2], inside[:, :, ::4]
        hidden = nn.functional.gelu(self.stem(mel * inside)) * inside
        hidden = self.middle(self.down_first(hidden) * half, half)
        hidden = self.down_second(hidden) * quarter
        for block in self.blocks:
            hidden = block(hidden, quarter)
        return self.out(_unit_scale(hidden))


class SpeechDecoder(nn.Module):
    """Quantized values and a style to log-magnitudes and log-mel energies."""

    def __init__(self, config: SpeechCodecConfig) -> None:
        """Most layers run at the code rate, where a layer sees far for little work."""
        super().__init__()
        dim = config.decoder_dim
        self.styles = nn.Embedding(len(config.styles), config.style_dim)
        self.stem = nn.Conv1d(len(config.levels), dim, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(dim, 5, config.style_dim) for _ in range(config.decoder_layers))
        self.up = nn.Conv1d(dim, FRAMES_PER_CODE * config.frame_dim, 1)
        self.frames = nn.ModuleList(
            ResidualBlock(config.frame_dim, 3, config.style_dim) for _ in range(config.frame_layers)
        )
        self.linear = nn.Conv1d(config.frame_dim, config.spectrum.num_bins, 1)
        self.mel = nn.Conv1d(config.frame_dim, config.spectrum.mel_bins, 1)

    def forward(
        self, values: Float[Tensor, "B L N"], style: Int[Tensor, " B"], inside: Float[Tensor, "B 1 N"]
    ) -> tuple[Float[Tensor, "B F K"], Float[Tensor, "B M K"]]:
        """N codes to 4 N frames."""
        voice = self.styles(style)  # B E
        hidden = self.stem(values * inside) * inside
        for block in self.blocks:
            hidden = block(hidden, inside, voice)
        raised = self.up(hidden)  # B 4*C N
        frames = raised.unflatten(1, (-1, FRAMES_PER_CODE)).transpose(2, 3).flatten(2)  # B C 4*N
        frame_inside = inside.repeat_interleave(FRAMES_PER_CODE, dim=2)
        frames = frames * frame_inside
        for block in self.frames:
            frames = block(frames, frame_inside, voice)
        return self.linear(frames), self.mel(frames)


class SmallSpeechTokenizer(nn.Module):
    """The codec behind the `SpeechTokenizer` protocol."""

    filters: Tensor

    def __init__(self, config: SpeechCodecConfig) -> None:
        """Random weights; load trained ones with `load_state_dict`."""
        super().__init__()
        self.config = config
        self.codebook_size = config.codebook_size
        self.input_rate_hz = self.output_rate_hz = config.spectrum.rate_hz
        self.frame_rate_hz = config.spectrum.rate_hz / config.samples_per_code
        self.styles = config.styles
        self.default_style = config.default_style
        self.encoder = SpeechEncoder(config)
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.decoder = SpeechDecoder(config)
        self.register_buffer("filters", mel_filter_bank(config.spectrum), persistent=False)

    def encode(self, audio: Audio) -> Int[Tensor, " N"]:
        """Sound at 16 kHz to one code per 40 ms, the last one padded with silence.

        Raises:
            MediaError: If the rate is not `input_rate_hz` or the sound is empty.
        """
        if audio.rate_hz != self.input_rate_hz:
            raise MediaError(
                f"the speech tokenizer needs {self.input_rate_hz} Hz, received {audio.rate_hz}; resample it"
            )
        return self.encode_batch([audio.samples])[0]

    @torch.no_grad()
    def encode_batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Int[Tensor, " _"]]:
        """Several waveforms at once; each gets the codes it gets alone."""
        if not waves or min(wave.shape[0] for wave in waves) == 0:
            raise MediaError("the speech tokenizer received a sound without samples")
        batch, num_codes = self.pad(waves)
        inside = _inside(num_codes, batch.shape[1] // self.config.samples_per_code)
        latents = self.encode_latents(self.mel(batch), inside)
        codes = self.quantizer.to_codes(self.quantizer(latents))
        return [row[:count].cpu() for row, count in zip(codes, num_codes.tolist(), strict=True)]

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, " N"], style: str | None = None, generator: torch.Generator | None = None
    ) -> Audio:
        """Codes to a sound at 16 kHz; without a generator the same codes always give the same samples.

        Raises:
            RequestError: If the style is unknown.
            VocabularyError: If a code is outside the codebook, or there is none.
        """
        if codes.numel() == 0 or int(codes.min()) < 0 or int(codes.max()) >= self.codebook_size:
            raise VocabularyError(f"speech codes must be 0 to {self.codebook_size - 1}, at least one of them")
        device = self.filters.device
        values = self.quantizer.to_values(codes.to(device)[None]).to(self.decoder.stem.weight.dtype)
        index = torch.tensor([self.style_index(style or self.default_style)], device=device)
        log_magnitude, _ = self.decoder(values, index, torch.ones_like(values[:, :1]))
        magnitude = (log_magnitude.float().exp() - self.config.spectrum.floor).clamp(min=0) ** self.config.sharpen
        chosen = generator if generator is not None else torch.Generator().manual_seed(0)
        wave = griffin_lim(magnitude, self.config.spectrum, generator=chosen)[0]
        return Audio(samples=normalise_loudness(wave[None])[0].clamp(-1, 1).cpu(), rate_hz=self.output_rate_hz)

    def fingerprint(self) -> str:
        """A hash of configuration and weights."""
        digest = hashlib.sha256(json.dumps(asdict(self.config), sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def style_index(self, style: str) -> int:
        """The row of a style; RequestError for an unknown one."""
        if style not in self.styles:
            raise RequestError(f"unknown voice {style!r}; this model speaks as {', '.join(self.styles)}")
        return self.styles.index(style)

    def pad(self, waves: Sequence[Float[Tensor, " _"]]) -> tuple[Float[Tensor, "B T"], Int[Tensor, " B"]]:
        """Waveforms at equal loudness, padded to whole codes, and the number of codes of each."""
        size = self.config.samples_per_code
        counts = torch.tensor([-(-wave.shape[0] // size) for wave in waves])
        batch = torch.zeros(len(waves), int(counts.max()) * size, device=self.filters.device)
        for row, wave in zip(batch, waves, strict=True):
            row[: wave.shape[0]] = normalise_loudness(wave.float()[None])[0].to(row.device)
        return batch, counts.to(batch.device)

    def mel(self, waves: Float[Tensor, "B T"]) -> Float[Tensor, "B M K"]:
        """Log-mel energies of padded waveforms."""
        return log_mel(magnitudes(waves, self.config.spectrum), self.filters.float(), self.config.spectrum.floor)

    def encode_latents(self, mel: Float[Tensor, "B M K"], inside: Bool[Tensor, "B N"]) -> Float[Tensor, "B L N"]:
        """Log-mel energies, less the average spectrum of each recording, through the encoder."""
        frame_inside = inside.repeat_interleave(FRAMES_PER_CODE, dim=1)[:, None].float()  # B 1 K
        level = mel.mean(dim=1, keepdim=True).masked_fill(frame_inside == 0, -math.inf)
        active = (level > level.amax(dim=2, keepdim=True) - ACTIVE_RANGE).float()
        average = (mel * active).sum(dim=2, keepdim=True) / active.sum(dim=2, keepdim=True)
        dtype = self.encoder.stem.weight.dtype
        return self.encoder(((mel - average) / 2).to(dtype), frame_inside.to(dtype)).float()


def normalise_loudness(waves: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Each waveform brought to `LOUDNESS`; silence is not amplified."""
    level = waves.square().mean(dim=1, keepdim=True).sqrt()
    return waves * (LOUDNESS / level.clamp(min=QUIET))


def _unit_scale(hidden: Float[Tensor, "B D K"]) -> Float[Tensor, "B D K"]:
    """Each position divided by its root mean square over channels."""
    return hidden * torch.rsqrt(hidden.square().mean(dim=1, keepdim=True) + 1e-5)


def _inside(num_codes: Int[Tensor, " B"], longest: int) -> Bool[Tensor, "B N"]:
    """True where a code stands for sound, False in the padding of a batch."""
    return torch.arange(longest, device=num_codes.device)[None] < num_codes[:, None]

"""The published speech tokenizer behind the protocol: what is said as codes, spoken again in a chosen style.

Enters: mono sounds at 16 kHz of any length, one or several; codes and the name of a style. Leaves: codes, 25 for a
second less those that repeat the one before; mono sounds at 22,050 Hz. Does not know where weights are stored
(convert.py) or ids of a vocabulary.

    sound --> pieces of up to 30 s --> features --> encoder --> latent --> codes 0..4095 --> less repeats
    T                                  128 T/160                4 T/640

    codes, style --> vocoder --> sound

How long each code was held is lost with the repeats, and the vocoder draws it anew: the way there and back keeps what
is said, not when. The networks run in the dtype and on the device of their weights; features and samples are float32
either way.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dynin.errors import MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio, require_sound
from dynin.tokenizers.emova.config import EmovaConfig
from dynin.tokenizers.emova.encoder import SpiralEncoder
from dynin.tokenizers.emova.features import HOP, MEL_BINS, RATE_HZ, features, pad
from dynin.tokenizers.emova.networks import OUTPUT_RATE_HZ
from dynin.tokenizers.emova.quantizer import ScalarQuantizer
from dynin.tokenizers.emova.vocoder import Vocoder
from dynin.tokenizers.fingerprint import fingerprint

SAMPLES_PER_CODE = 4 * HOP
BATCH_PIECES = 8
"""Pieces of sound that go through the encoder together."""
SHORTEST_PIECE_S = 1
"""A rest shorter than this shares its samples with the piece before: features are normalised over a piece."""
PUBLISHED = EmovaConfig()


class EmovaTokenizer(nn.Module):
    """Encoder and vocoder around codes; meets `tokenizers.protocol.SpeechTokenizer`."""

    reversible = False
    """Decoding what was encoded gives another sound, of another length."""
    collapses_repeats = True
    """No code equals the one before it."""
    unused: Mapping[str, Tensor]
    """What a published file holds beside the weights, by published name; written back as it was."""

    def __init__(self, config: EmovaConfig = PUBLISHED) -> None:
        """Build with weights that mean nothing yet; `convert.load` reads the published ones.

        Raises:
            RequestError: If the package transformers is missing.
        """
        super().__init__()
        self.config = config
        self.codebook_size = config.codebook_size
        self.input_rate_hz = RATE_HZ
        self.output_rate_hz = OUTPUT_RATE_HZ
        self.frame_rate_hz = RATE_HZ / SAMPLES_PER_CODE
        self.styles = tuple(sorted(config.style_rows, key=config.style_rows.__getitem__))
        self.default_style = config.default_style
        self.encoder = SpiralEncoder(config.encoder, MEL_BINS)
        self.pre_quant = nn.Linear(config.encoder.widths[-1], len(config.levels))
        self.quantizer = ScalarQuantizer(config.levels)
        self.vocoder = Vocoder(config.vocoder, config.codebook_size)
        self.style_embedding = nn.Embedding(config.num_styles, config.vocoder.style_dim)
        self.unused = {}

    def encode(self, audio: Audio) -> Int[Tensor, " N"]:
        """A sound to codes on the CPU, none equal to the one before.

        Raises:
            MediaError: If it is not at 16 kHz, is shorter than 0.1 seconds, silent or not finite.
        """
        if audio.rate_hz != self.input_rate_hz:
            raise MediaError(
                f"the sound is at {audio.rate_hz} Hz; the speech tokenizer needs {self.input_rate_hz} Hz; pass it "
                "through media.audio.resample"
            )
        return self.encode_batch([audio.samples])[0]

    def encode_batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Int[Tensor, " _"]]:
        """Several waveforms at 16 kHz at once; each gets the codes it gets alone, repeats collapsed.

        Raises:
            MediaError: As `encode`.
        """
        return [torch.unique_consecutive(codes) for codes in self.encode_frames(waves)]

    def encode_frames(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Int[Tensor, " _"]]:
        """The codes of waveforms before repeats are collapsed: one for every 40 ms, the last perhaps in part.

        A sound longer than `EmovaConfig.longest_s` is encoded in pieces, each as a sound of its own.

        Raises:
            MediaError: As `encode`.
        """
        for wave in waves:
            require_sound(Audio(samples=wave, rate_hz=self.input_rate_hz), "the sound for the speech tokenizer")
        pieces = [wave[start:stop] for wave in waves for start, stop in self.pieces(wave.shape[0])]
        batches = [pieces[first : first + BATCH_PIECES] for first in range(0, len(pieces), BATCH_PIECES)]
        encoded = iter([codes for batch in batches for codes in self._encode_pieces(batch)])
        return [torch.cat([next(encoded) for _ in self.pieces(wave.shape[0])]) for wave in waves]

    def pieces(self, num_samples: int) -> list[tuple[int, int]]:
        """First and last sample of the pieces in which a sound is encoded; all but the last are whole codes.

        Parity:
            The published code takes up to 60 s in one piece, and beyond that pieces of 100 s, which keep the codes of
            their padding. Here every piece counts for itself.
        """
        longest, shortest = self.config.longest_s * RATE_HZ, SHORTEST_PIECE_S * RATE_HZ
        cuts = list(range(longest, num_samples, longest))
        if cuts and num_samples - cuts[-1] < shortest:
            cuts[-1] -= longest // 2 // SAMPLES_PER_CODE * SAMPLES_PER_CODE
        return list(zip([0, *cuts], [*cuts, num_samples], strict=True))

    @torch.no_grad()
    def latent(
        self, mel: Float[Tensor, "B M K"], count: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B _ L"], Int[Tensor, " B"]]:
        """What the encoder says of padded features, before it is rounded to codes, and how much of it is filled."""
        weight = self.pre_quant.weight
        hidden, num_codes = self.encoder(mel.to(weight.device, weight.dtype), count.to(weight.device))
        return self.pre_quant(hidden), num_codes

    def _encode_pieces(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Int[Tensor, " _"]]:
        """One code for every 40 ms of each waveform, on the CPU."""
        device = self.pre_quant.weight.device
        latent, num_codes = self.latent(*pad([features(wave.to(device)) for wave in waves]))
        rows = [row[:count] for row, count in zip(latent, num_codes.tolist(), strict=True)]
        if not all(bool(row.isfinite().all()) for row in rows):
            raise MediaError(
                f"the speech tokenizer found numbers that are not finite, working in {latent.dtype}; expected finite "
                "samples in [-1, 1]; check the sound, or use float32 or bfloat16"
            )
        return [self.quantizer.codes(row).cpu() for row in rows]

    @torch.no_grad()
    def decode(
        self, codes: Int[Tensor, " N"], style: str | None = None, generator: torch.Generator | None = None
    ) -> Audio:
        """Codes to a sound at 22,050 Hz, on the CPU; nothing else but the generator changes.

        Args:
            style: One of `styles`; the default one if there is none.
            generator: Draws the rhythm and the fine structure. Without one, the same codes give the same samples.

        Raises:
            RequestError: If the style is unknown.
            VocabularyError: If a code is outside the codebook, or there is none.
            MediaError: If the network's numbers are not finite.
        """
        row = self.style_row(self.default_style if style is None else style)
        if codes.numel() == 0:
            raise VocabularyError("no speech codes were given, expected at least one; encode a sound first")
        if not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise VocabularyError(
                f"speech codes lie in [{int(codes.min())}, {int(codes.max())}]; the codebook has 0 to "
                f"{self.codebook_size - 1}; take the vocabulary's offset off ids first"
            )
        chosen = generator if generator is not None else torch.Generator().manual_seed(0)
        samples = self.vocoder(codes, self.style_embedding.weight[row], chosen)
        return Audio(samples=samples.cpu(), rate_hz=self.output_rate_hz)

    def style_row(self, style: str) -> int:
        """The row of a style in the table; RequestError with the nearest names for an unknown one."""
        if style not in self.config.style_rows:
            near = difflib.get_close_matches(style, self.styles, n=3, cutoff=0.0)
            raise RequestError(
                f"unknown style {style!r}, expected one of the {len(self.styles)} styles of this tokenizer; "
                f"the nearest are {', '.join(near)}"
            )
        return self.config.style_rows[style]

    def fingerprint(self) -> str:
        """A hash of configuration, weights and the dtype they work in: equal fingerprints give equal codes."""
        return fingerprint(asdict(self.config), self.state_dict())

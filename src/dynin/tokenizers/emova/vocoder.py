"""Codes and a style to a sound at 22,050 Hz.

Enters: one row of codes, a style as a vector, a generator. Leaves: samples. Does not know the names of styles, files or
the encoder.

    codes --> text encoder --> mean and spread of each code --> repeated --> + noise --> flow --> generator --> samples
                   |                                             ^
                   +--> + noise --> frames that each code lasts -+          voice: goes into all but the text encoder

The modules are those of the library's `VitsModel`; they are called one by one here, because the whole draws from the
global generators of torch and numpy, and builds a matrix of frames by codes. With equal noise it gives equal samples.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dynin.errors import MediaError
from dynin.tokenizers.emova import networks
from dynin.tokenizers.emova.config import VocoderSizes

FIRST_CODE = 178
"""Symbol of code 0; the padding symbol and 177 of written text stand before it."""
LONGEST_CODE_S = 10.0
"""A code that lasts longer comes from weights that do not belong here, and would fill the memory."""


class Vocoder(nn.Module):
    """A text-to-speech network whose text is codes.

    Source:
        VITS, arXiv:2106.06103.
    """

    def __init__(self, sizes: VocoderSizes, codebook_size: int) -> None:
        """Draw nothing: the weights keep the library's initialisation until they are loaded."""
        super().__init__()
        self.sizes = sizes
        model = networks.vits(sizes, FIRST_CODE + codebook_size)
        self.text_encoder: Any = model.text_encoder
        self.duration_predictor: Any = model.duration_predictor
        self.flow: Any = model.flow
        self.decoder: Any = model.decoder

    @property
    def context(self) -> int:
        """Frames on each side that a frame's samples depend on."""
        block = max(
            sum((kernel - 1) // 2 * (dilation + 1) for dilation in self.sizes.block_dilations)
            for kernel in self.sizes.block_kernels
        )
        reach, rate = 3.0, 1  # the first convolution; samples per frame
        for stride, kernel in zip(self.sizes.upsample_rates, self.sizes.upsample_kernels, strict=True):
            reach += kernel / stride / rate
            rate *= stride
            reach += block / rate
        return math.ceil(reach + 3 / rate)

    def forward(
        self, codes: Int[Tensor, " N"], style: Float[Tensor, " E"], generator: torch.Generator
    ) -> Float[Tensor, " T"]:
        """A whole number of frames, each of `VocoderSizes.hop` samples in [-1, 1].

        Raises:
            MediaError: If a code would last for ever, or a sample is not finite.
        """
        weight = self.text_encoder.embed_tokens.weight
        voice = style.to(weight.device, weight.dtype)[None, :, None]  # 1 E 1
        hidden, mean, log_spread = self._read(codes.to(weight.device)[None] + FIRST_CODE)
        lasts = self._durations(hidden, voice, generator)
        mean, log_spread = (stats.repeat_interleave(lasts, dim=1) for stats in (mean, log_spread))  # 1 K D
        mean, log_spread = mean.transpose(1, 2), log_spread.transpose(1, 2)  # 1 D K
        latent = mean + _noise(mean, generator) * torch.exp(log_spread) * self.sizes.noise_scale
        latent = self.flow(latent, torch.ones_like(latent[:, :1]), voice, reverse=True)
        samples = self._samples(latent, voice)
        if not bool(samples.isfinite().all()):
            raise _not_finite("samples", weight.dtype)
        return samples

    def _read(
        self, symbols: Int[Tensor, "1 N"]
    ) -> tuple[Float[Tensor, "1 N D"], Float[Tensor, "1 N D"], Float[Tensor, "1 N D"]]:
        """Hidden states, means and logarithms of spreads of the latents of each symbol."""
        hidden = self.text_encoder.embed_tokens(symbols) * math.sqrt(self.sizes.dim)
        everywhere = torch.ones_like(hidden[:, :, :1])
        for layer in self.text_encoder.encoder.layers:
            hidden = layer(hidden, everywhere)[0]
        stats = self.text_encoder.project(hidden.transpose(1, 2)).transpose(1, 2)
        mean, log_spread = stats.chunk(2, dim=2)
        return hidden, mean, log_spread

    def _durations(
        self, hidden: Float[Tensor, "1 N D"], voice: Float[Tensor, "1 E 1"], generator: torch.Generator
    ) -> Int[Tensor, " N"]:
        """Frames that each code lasts, at least one.

        A place that is masked is appended: it changes no other, and its latent, 0, keeps the splines of the flows from
        meeting an empty set of numbers, which they cannot do.
        """
        predictor = self.duration_predictor
        latent = _noise(hidden.new_empty(1, 2, hidden.shape[1]), generator) * self.sizes.duration_noise_scale
        latent = F.pad(latent, (0, 1))
        is_inside = F.pad(torch.ones_like(latent[:, :1, 1:]), (0, 1))
        seen = predictor.conv_pre(F.pad(hidden.transpose(1, 2), (0, 1))) + predictor.cond(voice)
        seen = predictor.conv_proj(predictor.conv_dds(seen, is_inside)) * is_inside
        affine, _, *splines = predictor.flows  # the first spline is of no use, as published
        try:
            for flow in (*reversed(splines), affine):
                latent, _ = flow(latent.flip(1), is_inside, global_conditioning=seen, reverse=True)
        except ValueError as error:  # the splines check their numbers
            raise _not_finite("durations", hidden.dtype) from error
        lasts = torch.ceil(torch.exp(latent[0, 0, :-1].float()))
        longest_s = float(lasts.max()) * self.sizes.hop / networks.OUTPUT_RATE_HZ
        if not longest_s <= LONGEST_CODE_S:  # also when it is not a number
            raise MediaError(
                f"a speech code is to last {longest_s:.0f} seconds, expected at most {LONGEST_CODE_S:.0f}, working in "
                f"{hidden.dtype}; use the published weights, in float32"
            )
        return lasts.long()

    def _samples(self, latent: Float[Tensor, "1 D K"], voice: Float[Tensor, "1 E 1"]) -> Float[Tensor, " T"]:
        """Latents to samples, a window at a time with as many frames around it as it depends on."""
        num_frames, hop, context = latent.shape[2], self.sizes.hop, self.context
        pieces = []
        for start in range(0, num_frames, self.sizes.window_frames):
            stop = min(start + self.sizes.window_frames, num_frames)
            first = max(start - context, 0)
            samples = self.decoder(latent[:, :, first : stop + context], voice)[0, 0]
            pieces.append(samples[(start - first) * hop : (stop - first) * hop])
        return torch.cat(pieces).float()


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers from the generator, in shape, dtype and on the device of `like`.

    Drawn into the memory layout of `like`, on which the order of draws depends: so they are those that the library
    draws with an equally seeded global generator.
    """
    drawn = torch.empty_like(like, dtype=torch.float32, device=generator.device).normal_(generator=generator)
    return drawn.to(like.device, like.dtype)


def _not_finite(what: str, dtype: torch.dtype) -> MediaError:
    return MediaError(f"the speech tokenizer found {what} that are not finite, working in {dtype}; use float32")

"""The published speech tokenizer with narrow networks and random weights, small enough to be built in a blink."""

import dataclasses

import torch

from dynin.tokenizers.emova.config import DEFAULT_STYLE, EmovaConfig, EncoderSizes, TransformerSizes, VocoderSizes
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer

FAST = "gender-male_emotion-happy_speed-fast_pitch-high"
SAD = "gender-male_emotion-sad_speed-slow_pitch-low"
EMOVA = EmovaConfig(
    encoder=EncoderSizes(
        widths=(16, 24, 32, 40, 48),
        lower=TransformerSizes(num_layers=1, num_heads=2, mlp_dim=32),
        upper=TransformerSizes(num_layers=2, num_heads=3, mlp_dim=32),
        position_kernel=16,
        position_groups=4,
    ),
    vocoder=VocoderSizes(
        dim=16, mlp_dim=24, num_layers=2, style_dim=8, upsample_dim=32, num_spectrum_bins=9, num_speakers=3
    ),
    num_styles=4,
    style_rows={SAD: 3, DEFAULT_STYLE: 2, FAST: 0},
    num_phones=5,
    phone_dim=6,
)


def emova(config: EmovaConfig = EMOVA) -> EmovaTokenizer:
    """A tokenizer whose weights are always the same, large enough for many different codes and durations."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = EmovaTokenizer(config).eval().requires_grad_(False)
        tokenizer.pre_quant.weight *= 12
        for parameter in tokenizer.vocoder.duration_predictor.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        tokenizer.vocoder.duration_predictor.flows[0].translate.add_(2.5)  # shorter sounds, quicker tests
    return tokenizer


def emova_of_256_codes() -> EmovaTokenizer:
    """Likewise, with a small codebook."""
    return emova(dataclasses.replace(EMOVA, levels=(4, 4, 4, 4)))

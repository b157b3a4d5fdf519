"""A narrow copy of the published speech tokenizer with random weights, and sounds for it."""

from collections.abc import Callable

import narrow_emova
import pytest
import torch

from dynin.media.audio import Audio
from dynin.tokenizers.emova.config import EmovaConfig
from dynin.tokenizers.emova.tokenizer import EmovaTokenizer


@pytest.fixture(scope="session")
def narrow_config() -> EmovaConfig:
    return narrow_emova.EMOVA


@pytest.fixture(scope="session")
def build() -> Callable[..., EmovaTokenizer]:
    """Makes tokenizers with equal weights."""
    return narrow_emova.emova


@pytest.fixture(scope="session")
def narrow(build: Callable[..., EmovaTokenizer]) -> EmovaTokenizer:
    return build()


@pytest.fixture(scope="session")
def noise() -> Callable[..., torch.Tensor]:
    """Noise whose colour and loudness change, so that codes do too."""

    def made(num_samples: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        wave = torch.randn(num_samples, generator=generator)
        smooth = torch.nn.functional.avg_pool1d(wave[None], 9, 1, 4)[0]
        turns = torch.sin(torch.arange(num_samples) / 1700) ** 2
        return (0.2 * (turns * wave + (1 - turns) * smooth)).clamp(-1, 1)

    return made


@pytest.fixture(scope="session")
def sound(noise: Callable[..., torch.Tensor]) -> Audio:
    return Audio(samples=noise(16000), rate_hz=16000)

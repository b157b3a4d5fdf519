"""The vocoder of the published speech tokenizer: the library's own samples, from a generator that is handed in."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dynin.errors import MediaError
from dynin.tokenizers.emova import networks
from dynin.tokenizers.emova.vocoder import FIRST_CODE, Vocoder


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    return torch.randint(0, 4096, (40,), generator=seeded())


@pytest.fixture(scope="module")
def style(narrow) -> torch.Tensor:
    return narrow.style_embedding.weight[2]


def test_samples_equal_those_of_the_whole_library_model_with_the_same_seed(narrow, codes, style):
    with torch.random.fork_rng():
        whole = networks.vits(narrow.config.vocoder, FIRST_CODE + 4096).eval()
        keys = whole.load_state_dict(narrow.vocoder.state_dict(), strict=False)
        assert keys.unexpected_keys == []
        assert {name.split(".")[0] for name in keys.missing_keys} == {"posterior_encoder"}
        whole.config.num_speakers = narrow.config.num_styles
        whole.embed_speaker = narrow.style_embedding
        torch.manual_seed(7)
        expected = whole(codes[None] + FIRST_CODE, speaker_id=2).waveform[0]
    got = narrow.vocoder(codes, style, seeded(7))
    assert got.shape == expected.shape
    assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_same_seed_gives_the_same_samples_and_another_one_others(narrow, codes, style):
    first, again, other = (narrow.vocoder(codes, style, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_global_generators_are_neither_read_nor_changed(narrow, codes, style):
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = narrow.vocoder(codes, style, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numbers)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(narrow.vocoder(codes, style, seeded()), first)


def test_samples_are_whole_frames_in_range(narrow, codes, style):
    samples = narrow.vocoder(codes, style, seeded())
    assert samples.dtype == torch.float32
    assert samples.shape[0] % 256 == 0
    assert samples.shape[0] >= 256 * len(codes)
    assert float(samples.abs().max()) <= 1


def test_windows_change_nothing_but_rounding(narrow, codes, style):
    whole, small = (
        Vocoder(dataclasses.replace(narrow.config.vocoder, window_frames=count), 4096).double().eval()
        for count in (1024, 5)
    )
    whole.load_state_dict(narrow.vocoder.state_dict())
    small.load_state_dict(narrow.vocoder.state_dict())
    assert_close(small(codes, style, seeded()), whole(codes, style, seeded()), rtol=0, atol=2e-7)


def test_the_context_covers_what_a_sample_depends_on(narrow):
    sizes, context = narrow.config.vocoder, narrow.vocoder.context
    assert context == 15
    latent = torch.randn(1, sizes.dim, 2 * context + 11, generator=seeded())
    voice = torch.zeros(1, sizes.style_dim, 1)
    changed = latent.clone()
    changed[:, :, 0] += 100
    is_changed = (narrow.vocoder.decoder(latent, voice) != narrow.vocoder.decoder(changed, voice))[0, 0]
    reach = int(is_changed.nonzero().max()) // sizes.hop
    assert context - 3 <= reach <= context


def test_without_noise_the_generator_does_not_matter(narrow, codes, style):
    still = dataclasses.replace(narrow.config.vocoder, noise_scale=0.0, duration_noise_scale=0.0)
    vocoder = Vocoder(still, 4096).eval()
    vocoder.load_state_dict(narrow.vocoder.state_dict())
    assert torch.equal(vocoder(codes, style, seeded(1)), vocoder(codes, style, seeded(2)))


def test_one_code_is_enough_even_where_its_noise_lies_outside_of_every_spline(build, style):
    wild = dataclasses.replace(build().config.vocoder, duration_noise_scale=1e4)
    vocoder = Vocoder(wild, 4096).eval()
    vocoder.load_state_dict(build().vocoder.state_dict())
    vocoder.duration_predictor.flows[0].log_scale.fill_(20.0)  # back to small durations at the end
    assert vocoder(torch.tensor([5]), style, seeded()).shape[0] % 256 == 0


def test_training_mode_drops_nothing_out(build, narrow, codes, style):
    assert torch.equal(build().vocoder.train()(codes, style, seeded()), narrow.vocoder(codes, style, seeded()))


@pytest.mark.parametrize(
    ("log_duration", "words"),
    [(9.0, r"to last \d{2,} seconds"), (1e4, "to last inf seconds"), (float("nan"), "nan|finite")],
)
def test_a_code_that_lasts_too_long_is_refused_before_memory_is_taken(log_duration, words, build, codes, style):
    tokenizer = build()
    affine = tokenizer.vocoder.duration_predictor.flows[0]
    affine.translate.fill_(-log_duration)
    affine.log_scale.fill_(0.0)
    tokenizer.vocoder.duration_predictor.conv_proj.weight.zero_()
    with pytest.raises(MediaError, match=words):
        tokenizer.vocoder(codes, style, seeded())


def test_samples_that_are_not_finite_are_refused(build, codes, style):
    vocoder = build().vocoder
    vocoder.decoder.conv_pre.bias.fill_(float("nan"))
    with pytest.raises(MediaError, match=r"samples that are not finite, working in torch.float32"):
        vocoder(codes, style, seeded())

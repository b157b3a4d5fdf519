"""The encoder of the published speech tokenizer: lengths, and padding that changes nothing."""

import pytest
import torch
from torch.testing import assert_close

from dynin.tokenizers.emova.encoder import ConvNorm, inside
from dynin.tokenizers.emova.features import features, pad


@pytest.mark.parametrize(
    ("num_samples", "num_codes"), [(16000, 25), (16001, 26), (80000, 125), (1600, 3), (1920, 3), (1921, 4)]
)
def test_a_code_stands_for_40_ms(num_samples, num_codes, narrow, noise):
    mel, count = pad([features(noise(num_samples))])
    latent, num_filled = narrow.latent(mel, count)
    assert latent.shape == (1, mel.shape[2] // 4, 4)
    assert num_filled.tolist() == [num_codes]


def test_a_batch_gives_every_sound_the_latents_it_gets_alone(narrow, noise):
    rows = [features(noise(count, seed)) for seed, count in enumerate((16000, 40000, 5000, 25601))]
    together, num_codes = narrow.latent(*pad(rows))
    for row, latent, count in zip(rows, together, num_codes.tolist(), strict=True):
        alone, (length,) = narrow.latent(*pad([row]))
        assert length == count
        assert_close(latent[:count], alone[0, :count], rtol=0, atol=1e-5 * float(alone.abs().max()))


def test_what_lies_behind_the_filled_frames_is_not_looked_at(narrow, noise):
    mel, count = pad([features(noise(16000))])
    latent, (filled,) = narrow.latent(mel, count)
    dirty = mel.clone()
    dirty[..., 100:] = 7
    assert torch.equal(narrow.latent(dirty, count)[0][:, :filled], latent[:, :filled])


def test_features_that_are_given_are_not_changed(narrow, noise):
    mel, count = pad([features(noise(5000)), features(noise(16000))])
    before = mel.clone()
    narrow.latent(mel, count)
    assert torch.equal(mel, before)


def test_training_mode_drops_nothing_out(build, noise):
    mel, count = pad([features(noise(5000))])
    tokenizer = build()
    expected, _ = tokenizer.latent(mel, count)
    assert torch.equal(tokenizer.train().latent(mel, count)[0], expected)


def test_a_stride_looks_one_frame_back_and_two_ahead():
    block = ConvNorm(1, 4, 5, stride=2, has_relu=False)
    assert block.zeros == (1, 2)
    assert ConvNorm(1, 4, 5, has_relu=True).zeros == (2, 2)
    assert ConvNorm(1, 4, 1, has_relu=True).zeros == (0, 0)
    out, count = block(torch.zeros(2, 1, 16), torch.tensor([16, 9]))
    assert out.shape == (2, 4, 8)
    assert count.tolist() == [8, 5]


def test_inside_is_true_at_the_filled_places():
    assert inside(torch.tensor([0, 2]), 3).tolist() == [[False] * 3, [True, True, False]]

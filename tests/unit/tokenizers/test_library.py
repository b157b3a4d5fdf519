"""Codecs of the package `transformers`: which codebooks, which sounds and pictures, and what is not loaded."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_codecs
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from dynin.errors import CheckpointError, ConfigError, MediaError, RequestError, VocabularyError
from dynin.media.audio import Audio
from dynin.tokenizers.library import networks
from dynin.tokenizers.library.codebooks import Codebooks
from dynin.tokenizers.library.image import LibraryImageTokenizer
from dynin.tokenizers.library.speech import LibrarySpeechTokenizer

CODECS = {
    "mimi": (tiny_codecs.mimi, {"num_quantizers": 2}),
    "dac": (tiny_codecs.dac, {"n_quantizers": 2}),
    "encodec": (tiny_codecs.encodec, {"bandwidth": 0.75}),
    "xcodec": (tiny_codecs.xcodec, {"bandwidth": 0.5}),
}
"""Each with how its own `encode` is asked for two codebooks."""

codecs = pytest.mark.parametrize("name", CODECS)


def noise(num_samples: int, rate_hz: int = 16000) -> Audio:
    samples = torch.rand(num_samples, generator=torch.Generator().manual_seed(2)) - 0.5
    return Audio(samples=samples * torch.linspace(0.1, 1, num_samples), rate_hz=rate_hz)


def half_a_second(tokenizer: LibrarySpeechTokenizer) -> Audio:
    """Whole frames, about half a second of them."""
    frame = tokenizer.samples_per_frame
    return noise(tokenizer.input_rate_hz // 2 // frame * frame, tokenizer.input_rate_hz)


def own_codes(network: Any, audio: Audio, **settings: object) -> Tensor:
    """What `transformers` gives, by codebook and frame."""
    with torch.no_grad():
        codes = network.encode(audio.samples[None, None], **settings).audio_codes
    return codes.reshape(codes.shape[-2:])


# --- codebooks ------------------------------------------------------------------------------------------------------


def test_codebooks_take_turns_and_each_has_its_own_codes() -> None:
    row = Codebooks(count=2, size=4).join(torch.tensor([[1, 3, 0], [2, 0, 3], [1, 1, 1]]))
    assert row.tolist() == [1, 6, 3, 4, 0, 7]
    assert Codebooks(count=1, size=4).join(torch.tensor([[1, 3, 0], [2, 0, 3]])).tolist() == [1, 3, 0]


@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 6), st.randoms(use_true_random=False))
def test_splitting_is_the_inverse_of_joining(count: int, size: int, num_frames: int, random: Any) -> None:
    codes = torch.tensor([[random.randrange(size) for _ in range(num_frames)] for _ in range(count)])
    books = Codebooks(count=count, size=size)
    row = books.join(codes)
    assert torch.equal(books.split(row), codes)
    assert int(row.max()) < books.total == count * size


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([0, 4, 1], "3 speech codes do not fill whole frames of 2 codes"),
        ([0, 4, 5, 1], "speech code 5 at position 2 is of another codebook, expected 0 to 3"),
        ([0, 4, 1, 2], "speech code 2 at position 3 is of another codebook, expected 4 to 7"),
        ([0, 8], r"lie in \[0, 8\]; the codebook has 0 to 7"),
        ([-1, 4], r"lie in \[-1, 4\]"),
        ([], "are none"),
    ],
)
def test_rows_that_are_no_frames_are_refused(row: list[int], words: str) -> None:
    with pytest.raises(VocabularyError, match=words):
        Codebooks(count=2, size=4).split(torch.tensor(row, dtype=torch.int64))


@codecs
def test_several_codebooks_need_a_layout(name: str) -> None:
    with pytest.raises(ConfigError, match=r"codebooks and no layout was given; .*decoding then uses one codebook"):
        LibrarySpeechTokenizer(CODECS[name][0]())


def test_one_codebook_needs_none() -> None:
    tokenizer = LibrarySpeechTokenizer(tiny_codecs.dac(n_codebooks=1))
    assert (tokenizer.codebook_size, tokenizer.frame_rate_hz) == (32, 31.25)


@pytest.mark.parametrize(
    ("layout", "count", "words"),
    [("first", 2, "is 2; .*allows 1 to 1"), ("interleave", 5, "is 5; .*1 to 4"), ("interleave", 0, "is 0; .*1 to 4")],
)
def test_a_number_that_the_layout_or_the_codec_has_not_is_refused(layout: Any, count: int, words: str) -> None:
    with pytest.raises(ConfigError, match=f"num_codebooks {words}"):
        LibrarySpeechTokenizer(tiny_codecs.mimi(), layout=layout, num_codebooks=count)


# --- sounds ---------------------------------------------------------------------------------------------------------


@codecs
def test_codes_are_those_of_the_library_frame_by_frame(name: str) -> None:
    network, two = CODECS[name][0](), CODECS[name][1]
    whole = LibrarySpeechTokenizer(network, layout="interleave")
    audio = half_a_second(whole)
    most = {"bandwidth": 1.5} if name == "encodec" else {}
    own = own_codes(network, audio, **most)
    assert torch.equal(whole.codebooks.split(whole.encode(audio)), own)
    assert torch.equal(LibrarySpeechTokenizer(network, layout="first").encode(audio), own[0])
    pair = LibrarySpeechTokenizer(network, layout="interleave", num_codebooks=2)
    assert pair.codebook_size == 64
    assert pair.frame_rate_hz == whole.frame_rate_hz / whole.codebooks.count * 2
    assert torch.equal(pair.codebooks.split(pair.encode(audio)), own_codes(network, audio, **two))
    assert len({part.fingerprint() for part in (whole, pair)}) == 2


@codecs
def test_with_layout_first_one_codebook_is_all_that_the_decoder_hears(name: str) -> None:
    network = CODECS[name][0]()
    tokenizer = LibrarySpeechTokenizer(network, layout="first")
    codes = torch.tensor([3, 1, 31, 0, 7])
    scales = {"audio_scales": [None]} if name == "encodec" else {}
    own = network.decode(audio_codes=codes[None, None, None] if scales else codes[None, None], **scales).audio_values
    made = tokenizer.decode(codes)
    assert made.samples.shape == (5 * tokenizer.samples_per_frame,)
    torch.testing.assert_close(made.samples, own.flatten()[: len(made.samples)].clamp(-1, 1))


@codecs
def test_the_last_frame_is_filled_up_with_silence(name: str) -> None:
    tokenizer = LibrarySpeechTokenizer(CODECS[name][0](), layout="interleave")
    whole = half_a_second(tokenizer)
    whole.samples[-100:] = 0
    cut = Audio(samples=whole.samples[:-100], rate_hz=whole.rate_hz)
    assert torch.equal(tokenizer.encode(cut), tokenizer.encode(whole))


def test_a_decoder_that_ends_early_is_filled_up_and_one_that_ends_late_is_cut() -> None:
    for ratios in ([2, 4, 5, 8], [3, 3, 4, 8]):
        tokenizer = LibrarySpeechTokenizer(tiny_codecs.dac(downsampling_ratios=ratios), layout="first")
        frame = tokenizer.samples_per_frame
        own = tokenizer.network.decode(audio_codes=torch.zeros(1, 1, 3, dtype=torch.int64)).audio_values.shape[-1]
        assert own < 3 * frame
        assert tokenizer.decode(torch.zeros(3, dtype=torch.int64)).samples.shape == (3 * frame,)
        assert tokenizer.encode(noise(8 * frame)).shape == (8,)


def test_two_channels_are_given_the_same_and_averaged() -> None:
    network = tiny_codecs.encodec(audio_channels=2)
    tokenizer = LibrarySpeechTokenizer(network, layout="first")
    audio = half_a_second(tokenizer)
    with torch.no_grad():
        own = network.encode(audio.samples.expand(1, 2, -1)).audio_codes[0, 0, 0]
        sound = network.decode(own[None, None, None], [None]).audio_values[0].mean(0)
    assert torch.equal(tokenizer.encode(audio), own)
    torch.testing.assert_close(tokenizer.decode(own).samples, sound.clamp(-1, 1))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (torch.zeros(16000), "is silent"),
        (torch.ones(1000), "lasts 0.062 seconds"),
        (torch.tensor([0.5, float("nan")]).repeat(8000), "not finite"),
        (torch.zeros(0), "lasts 0.000 seconds"),
    ],
)
def test_sounds_with_nothing_to_hear_are_refused(samples: Tensor, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        LibrarySpeechTokenizer(tiny_codecs.dac(), layout="first").encode(Audio(samples=samples, rate_hz=16000))


@pytest.mark.parametrize("change", [{"normalize": True}, {"chunk_length_s": 1.0, "overlap": 0.01}])
def test_an_encodec_whose_codes_alone_are_no_sound_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="normalize false and chunk_length_s null"):
        LibrarySpeechTokenizer(tiny_codecs.encodec(**change), layout="first")


def test_a_network_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="'janus_vqgan' was given, expected one of dac, encodec, mimi, xcodec"):
        LibrarySpeechTokenizer(tiny_codecs.janus(), layout="first")
    with pytest.raises(ConfigError, match="'dac' was given, expected a JanusVQVAE"):
        LibraryImageTokenizer(tiny_codecs.dac())


def test_a_config_that_tells_other_frames_than_the_network_makes_is_found() -> None:
    network = tiny_codecs.dac()
    network.config.hop_length = 256
    with pytest.raises(CheckpointError, match="made 31 frames of 16128 samples, expected 63"):
        LibrarySpeechTokenizer(network, layout="first").encode(noise(16000))


# --- pictures -------------------------------------------------------------------------------------------------------


def pictures(height: int, width: int) -> Tensor:
    return torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_rows_of_equal_length_give_the_codes_of_the_library_in_raster_order() -> None:
    network = tiny_codecs.janus()
    table = network.quantize.embedding.weight
    table.data = normalize(table.data, dim=-1)
    tokenizer = LibraryImageTokenizer(network)
    codes = tokenizer.encode(pictures(8, 12))
    assert codes.shape == (2, 4 * 6)
    assert torch.equal(codes.flatten(), network.encode(pictures(8, 12)).image_tokens)


def test_rows_are_compared_by_direction_whatever_their_length() -> None:
    network = tiny_codecs.janus()
    tokenizer = LibraryImageTokenizer(network)
    before = tokenizer.encode(pictures(8, 8))
    network.quantize.embedding.weight.data *= torch.linspace(0.1, 10, 64)[:, None]
    assert torch.equal(tokenizer.encode(pictures(8, 8)), before)
    assert not torch.equal(network.encode(pictures(8, 8)).image_tokens, before.flatten())


def test_pictures_are_those_of_the_library_and_other_shapes_decode_too() -> None:
    tokenizer = LibraryImageTokenizer(tiny_codecs.janus())
    codes = torch.arange(32).reshape(2, 16)
    torch.testing.assert_close(tokenizer.decode(codes, (4, 4)), tokenizer.network.decode(codes).clamp(-1, 1))
    assert (tokenizer.downsample, tokenizer.image_size) == (2, 8)
    assert tokenizer.decode(codes, (2, 8)).shape == (2, 3, 4, 16)


def test_pixels_that_are_not_finite_are_refused() -> None:
    given = pictures(4, 4)
    given[0, 0, 0, 0] = float("inf")
    with pytest.raises(MediaError, match=r"not finite, working in torch\.float32"):
        LibraryImageTokenizer(tiny_codecs.janus()).encode(given)


# --- loading --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dac_folder(tmp_path: Path) -> Path:
    tiny_codecs.dac().save_pretrained(tmp_path)
    return tmp_path


def load_dac(folder: Path) -> LibrarySpeechTokenizer:
    return LibrarySpeechTokenizer.load(folder, layout="first")


def change_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def test_the_picture_codec_of_a_whole_janus_is_read_alone(tmp_path: Path) -> None:
    whole = tiny_codecs.whole_janus()
    whole.save_pretrained(tmp_path)
    tokenizer = LibraryImageTokenizer.load(tmp_path)
    assert tokenizer.fingerprint() == LibraryImageTokenizer(whole.model.vqmodel).fingerprint()
    assert tokenizer.image_size == 8


def test_loading_says_nothing_and_leaves_the_voice_of_the_library(
    dac_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging = tiny_codecs.transformers.utils.logging
    logging.set_verbosity(logging.ERROR)
    logging.enable_progress_bar()
    capfd.readouterr()
    tokenizer = LibrarySpeechTokenizer.load(str(dac_folder), layout="first", dtype=torch.bfloat16)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, True)
    logging.set_verbosity(logging.WARNING)
    assert {value.dtype for value in tokenizer.state_dict().values()} == {torch.bfloat16}
    assert not tokenizer.network.training
    assert not any(parameter.requires_grad for parameter in tokenizer.parameters())


def test_code_that_comes_with_a_model_is_not_run(dac_folder: Path) -> None:
    change_config(dac_folder, auto_map={"AutoModel": "modeling_own.DacModel", "AutoConfig": "modeling_own.DacConfig"})
    (dac_folder / "modeling_own.py").write_text(f"open({str(dac_folder / 'was_run')!r}, 'w').close()\n")
    assert load_dac(dac_folder).fingerprint() == LibrarySpeechTokenizer(tiny_codecs.dac(), layout="first").fingerprint()
    assert not (dac_folder / "was_run").exists()


def test_pickled_weights_are_not_read(dac_folder: Path) -> None:
    torch.save(load_file(dac_folder / "model.safetensors"), dac_folder / "pytorch_model.bin")
    (dac_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no \.safetensors file; pickled weights are not read"):
        load_dac(dac_folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "missing or no valid JSON"),
        ("{", "missing or no valid JSON"),
        ('{"model_type": "whisper"}', "is whisper, expected one of dac, encodec, mimi, xcodec"),
        ('{"model_type": ["dac"]}', "expected one of dac, encodec, mimi, xcodec"),
        ("[]", "is missing, expected one of"),
        ('{"model_type": "dac", "codebook_size": "many"}', "make no DacModel"),
    ],
)
def test_a_config_of_no_known_codec_is_refused(dac_folder: Path, text: str | None, words: str) -> None:
    (dac_folder / "config.json").unlink()
    if text is not None:
        (dac_folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_dac(dac_folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "unknown", "wrong shapes", "cut short"])
def test_weights_that_do_not_fit_are_refused(dac_folder: Path, fault: str) -> None:
    file = dac_folder / "model.safetensors"
    tensors = load_file(file)
    if fault == "missing":
        del tensors["encoder.conv1.bias"]
    if fault == "unknown":
        tensors["encoder.conv9.bias"] = torch.zeros(1)
    save_file(tensors, file, metadata={"format": "pt"})
    if fault == "wrong shapes":
        change_config(dac_folder, codebook_size=64)
    if fault == "cut short":
        file.write_bytes(file.read_bytes()[:-100])
    words = {"missing": "missing: encoder.conv1.bias", "unknown": "unknown: encoder.conv9.bias"}
    with pytest.raises(CheckpointError, match=words.get(fault, "config and weights make no DacModel")) as caught:
        load_dac(dac_folder)
    assert "\n" not in str(caught.value)


def test_a_place_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        LibraryImageTokenizer.load(tmp_path / "nowhere")


def test_a_missing_or_old_package_names_the_command_that_installs_it(
    dac_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks.library(), "DacModel", None)
    with pytest.raises(RequestError, match=r"has no DacModel; run: pip install 'dynin\[published\]'"):
        load_dac(dac_folder)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RequestError, match=r"transformers is missing .*pip install 'dynin\[published\]'"):
        load_dac(dac_folder)


def test_the_package_is_imported_when_it_is_needed_and_no_earlier() -> None:
    code = (
        "import sys; import dynin.tokenizers.library.speech, dynin.tokenizers.library.image; "
        "sys.exit('transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_leave_out_where_a_network_came_from_and_what_is_the_default(dac_folder: Path) -> None:
    change_config(dac_folder, transformers_version="6.0.0", _name_or_path="elsewhere", architectures=["Other"])
    settings = networks.settings(load_dac(dac_folder).network)
    assert settings == networks.settings(tiny_codecs.dac())
    assert settings["codebook_size"] == 32
    assert not {"transformers_version", "architectures", "dtype", "sampling_rate"} & settings.keys()
    changed = tiny_codecs.xcodec(
        semantic_model_config={**tiny_codecs.XCODEC["semantic_model_config"], "layer_norm_eps": 0.5}
    )
    assert networks.settings(changed)["semantic_model_config"]["layer_norm_eps"] == 0.5

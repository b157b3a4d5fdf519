"""A model's tokenizers without its network are those of the whole model."""

import pytest

from dynin.errors import CheckpointError
from dynin.pipeline import encoding
from dynin.pipeline.folder import load
from dynin.testing import tiny_model, tiny_published


def test_the_tokenizers_of_a_model_of_ours_are_those_it_is_loaded_with(tmp_path):
    folder = tiny_model(tmp_path / "model")
    read, whole = encoding.read(folder), load(folder)
    assert read.tokenizers.fingerprints() == whole.tokenizers.fingerprints()
    assert (read.tokenizers.video.num_frames, read.tokenizers.video.rate_hz) == (
        whole.tokenizers.video.num_frames, whole.tokenizers.video.rate_hz
    )  # fmt: skip
    assert read.vocabulary == whole.vocabulary
    assert read.max_len == whole.model.config.max_len
    assert read.tasks is whole.tasks


@pytest.mark.parametrize("family", ["published", "mmada", "llada"])
def test_those_of_a_published_model_too_by_its_folder_or_a_file_that_tells_of_it(tmp_path, family):
    folder = tiny_published(tmp_path / "model", family)
    (tmp_path / "model.toml").write_text('backbone = "model"\n')
    whole = load(folder)
    for name in (folder, tmp_path / "model.toml"):
        read = encoding.read(name)
        assert read.vocabulary == whole.vocabulary
        assert read.tokenizers.fingerprint("text") == whole.tokenizers.fingerprint("text")
        assert read.max_len == whole.model.config.max_len
        assert read.tasks is whole.tasks


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "config.json",
            '"model_type"',
            '"dynin_video": {"num_frames": "many"}, "model_type"',
            "dynin_video is .*'many'",
        ),
        ("tokenizer.json", "endoftext", "endofword", r"tokenizer\.json: damaged .*SHA-256"),
    ],
)
def test_a_damaged_file_beside_the_weights_is_named(tmp_path, name, old, new, message):
    folder = tiny_published(tmp_path / "model")
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    for read in (encoding.read, load):
        with pytest.raises(CheckpointError, match=message):
            read(folder)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="none"):
        encoding.read(tmp_path / "none")

"""`dynin data speech`: spoken sentences of Emoji World as the codes that training reads.

Enters: how many sentences of which split, and a speech tokenizer. Leaves: a shard, and beside it the sounds in parts,
so that an interrupted run goes on. Does not know the language model.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.data.pretokenize_speech import BatchEncoder


def write_shard(
    path: Path, *, codec: Path, count: int, seed: int, split: Literal["train", "held_out"], is_long: bool = False
) -> None:
    """Speak `count` different sentences in the training voices, encode them, write the shard.

    Args:
        codec: A folder that `dynin train-codec speech` wrote, or a model's, whose speech tokenizer is taken.

    Raises:
        RequestError: If a speech program is missing, or `path` is no name of a shard.
        CheckpointError: If `codec` holds no speech tokenizer.
    """
    if path.suffix != ".npz" or path.is_dir():
        raise RequestError(f"{path} is no name of a shard; give a file that ends in .npz")
    import numpy as np

    from dynin.cli.progress import Progress
    from dynin.data import pretokenize_speech, spoken_parts
    from dynin.data.emoji_world.voice import VOICES_TRAIN
    from dynin.data.speech_corpus import duration_s

    spoken_parts.require_programs(set(VOICES_TRAIN))
    tokenizer = read_encoder(codec)
    texts = spoken_parts.world_sentences(count, seed=seed, split=split, is_long=is_long)
    assigned = pretokenize_speech.assign_voices(texts, np.random.default_rng(seed))
    items = pretokenize_speech.with_scarce_in_target(assigned)
    corpus = spoken_parts.speak_in_parts(items, sound_folder(path), report=Progress("spoken", len(items)))
    varied = pretokenize_speech.VariedCorpus.of(corpus, np.random.default_rng((seed, 1)))
    codes = pretokenize_speech.encode_corpus(varied, tokenizer, Progress("encoded", len(varied)))
    pretokenize_speech.write_codes(path, varied, codes, tokenizer.fingerprint())
    minutes = duration_s(corpus) / 60
    typer.echo(f"{count} sentences, {minutes:.1f} min, {sum(map(len, codes))} codes ({split}, seed {seed}) in {path}")


def read_encoder(folder: Path) -> "BatchEncoder":
    """The speech tokenizer of a codec's or a model's folder; CheckpointError where there is none."""
    from dynin.data.pretokenize_speech import BatchEncoder
    from dynin.pipeline.folder import load
    from dynin.training.codec_speech import read_speech_codec

    if not (folder / "backbone").is_dir():
        return read_speech_codec(folder)
    tokenizer = load(folder).tokenizers.speech
    if not isinstance(tokenizer, BatchEncoder):
        raise RequestError(f"the speech tokenizer of {folder} encodes no batches; name a folder of a codec")
    return tokenizer


def sound_folder(path: Path) -> Path:
    """Where the sounds of a shard are kept."""
    return path.with_name(path.stem + "-sounds")

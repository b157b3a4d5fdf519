"""A model folder to be merged, in either layout of files: what it holds, and whether it can be merged with others.

Enters: folders or hub ids. Leaves: `Source` values, compared with each other, and rows of their tensors, read one shard
at a time. Does not know recipes.

    published    config.json  model-*.safetensors  tokenizer.json        image/  speech/ where the model carries them
    dynin        backbone/  text/                                        image/  speech/ likewise
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from dynin import checkpoint, repository
from dynin.errors import CheckpointError, ConfigError, VocabularyError
from dynin.model import published
from dynin.model.config import ModelConfig
from dynin.model.convert import IGNORED_PREFIX, expected_shapes, published_names
from dynin.model.remap import TABLES
from dynin.pipeline.parts import image_tokenizer, is_ours, speech_tokenizer
from dynin.pipeline.published import TEXT_FILE, VIDEO_KEY, read_text
from dynin.repository import Repository
from dynin.vocabulary import Range, Vocabulary

Layout = Literal["published", "dynin"]
MEDIA = ("image", "speech")
DTYPES: Mapping[str, torch.dtype] = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_UNUSED = ("*.py", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.md")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One model, of which headers and configs have been read."""

    given: str
    """As the user named it."""
    folder: Path
    layout: Layout
    """Of its files."""
    config: ModelConfig
    vocabulary: Vocabulary
    names: Mapping[str, str]
    """Of every tensor by our name, the stored one, in the order in which this layout of files has them."""
    repository: Repository
    tokenizers: Mapping[str, str]
    """A hash of each tokenizer that the folder carries, by modality."""
    video: Mapping[str, object]
    """Frames and their rate, where the folder says."""

    @property
    def left_out(self) -> list[str]:
        """Stored tensors that no network of ours has."""
        return sorted(self.repository.tensors.keys() - set(self.names.values()))

    def dtype(self, tensor: str) -> torch.dtype:
        """What a tensor is stored in, by our name."""
        return DTYPES[self.repository.tensors[self.names[tensor]].dtype]

    def files(self) -> list[Path]:
        """Every file that belongs to the model, code, cards and hidden files left out."""
        inner = [path for path in self.folder.rglob("*") if path.is_file()]
        kept = [path for path in inner if not any(part.startswith(".") for part in path.relative_to(self.folder).parts)]
        places = {".", *MEDIA, *(("backbone", "text") if self.layout == "dynin" else ())}
        return sorted(
            path
            for path in kept
            if path.parent.relative_to(self.folder).as_posix() in places
            and not any(path.match(pattern) for pattern in _UNUSED)
        )

    def sums(self) -> dict[str, str]:
        """The SHA-256 of every file, each compared with the folder's own checksums.

        Raises:
            CheckpointError: If a file is damaged.
        """
        found: dict[str, str] = {}
        paths = self.files()
        for folder in dict.fromkeys(path.parent for path in paths):
            checked = repository.checked_sums(folder, [path for path in paths if path.parent == folder])
            found |= {path.relative_to(self.folder).as_posix(): digest for path, digest in checked.items()}
        return found


class Reader:
    """Rows of a source's tensors; one shard is open at a time."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._stack = ExitStack()
        self._shard: Path | None = None
        self._file: safe_open

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def rows(self, tensor: str, runs: Sequence[Range], start: int, stop: int) -> Float[Tensor, "n ..."]:
        """As stored, the rows `start` to `stop` of those that the runs name, counted over all runs."""
        name = self.source.names[tensor]
        shard = self.source.repository.tensors[name].shard
        if shard != self._shard:
            self._stack.close()
            self._file = self._stack.enter_context(safe_open(shard, framework="pt"))
            self._shard = shard
        part = self._file.get_slice(name)
        read = [part[span.start : span.stop] for span in cut(runs, start, stop)]
        return read[0] if len(read) == 1 else torch.cat(read)


def cut(runs: Sequence[Range], start: int, stop: int) -> Iterator[Range]:
    """What of the runs lies between two places, counted over all runs."""
    before = 0
    for run in runs:
        first, last = max(start, before), min(stop, before + len(run))
        if first < last:
            yield Range(start=run.start + first - before, stop=run.start + last - before)
        before += len(run)


def open_source(path_or_id: str | os.PathLike[str], text_len: int | None = None) -> Source:
    """Read the headers and configs of a model.

    Args:
        text_len: For published models whose config does not say where image codes begin.

    Raises:
        CheckpointError: If there is none, a file is missing, or config and weights do not belong together.
    """
    folder = checkpoint.resolve(path_or_id)
    if published.is_published(folder):
        return _open_published(os.fspath(path_or_id), folder, text_len)
    whole = checkpoint.read_config(folder)
    if whole.kind != "model":
        raise CheckpointError(f"{folder} holds one part ({whole.kind}), expected a whole model; name its parent folder")
    home = folder / "backbone"
    backbone = checkpoint.read_config(home)
    if backbone.vocabulary is None:
        raise CheckpointError(f"{home / published.CONFIG}: has no vocabulary layout; fetch the model again")
    try:
        config = ModelConfig.from_dict(backbone.config["network"])  # type: ignore[arg-type]
    except (KeyError, ConfigError) as error:
        raise CheckpointError(f"{home / published.CONFIG}: {error}; fetch the model again") from error
    return _checked(
        Source(
            given=os.fspath(path_or_id),
            folder=folder,
            layout="dynin",
            config=config,
            vocabulary=backbone.vocabulary,
            names={name: name for name in expected_shapes(config)},
            repository=repository.open_repository(home),
            tokenizers=_tokenizers(folder, folder / "text" / TEXT_FILE),
            video=backbone.config.get("video", {}),  # type: ignore[arg-type]
        )
    )


def _open_published(given: str, folder: Path, text_len: int | None) -> Source:
    found = published.read(folder)
    _, layout = read_text(found, text_len)
    return _checked(
        Source(
            given=given,
            folder=folder,
            layout="published",
            config=found.config,
            vocabulary=layout,
            names={ours: theirs for theirs, ours in published_names(found.config).items()},
            repository=found.repository,
            tokenizers=_tokenizers(folder, folder / TEXT_FILE),
            video=found.values.get(VIDEO_KEY, {}),  # type: ignore[arg-type]
        )
    )


def require_equal(sources: Sequence[Source]) -> Source:
    """The source whose config, tokenizers and rows the result has: the first one of most rows.

    A model may lack all rows of pictures or of speech, as the published backbones do; nothing else may differ.

    Raises:
        CheckpointError: If sizes, files' layouts, ids or tokenizers differ; the message says what to do.
    """
    base, *others = sources
    donor = max(sources, key=lambda source: source.vocabulary.size)
    for source in others:
        if source.layout != base.layout:
            raise CheckpointError(
                f"{base.given} has the {base.layout} layout of files, {source.given} the {source.layout} one; bring "
                f"one to the other by `dynin convert {source.given} FOLDER --to {base.layout}`"
            )
        for field in fields(ModelConfig):
            mine, yours = getattr(base.config, field.name), getattr(source.config, field.name)
            if mine != yours and field.name != "num_rows":
                raise CheckpointError(
                    f"{base.given} has {field.name} {mine}, {source.given} has {yours}; only models of one shape can "
                    "be merged"
                )
        _require_same(base, source, "video", base.video, source.video)
        for name in base.tokenizers.keys() & source.tokenizers.keys():
            _require_same(base, source, f"{name} tokenizer", base.tokenizers[name], source.tokenizers[name])
    for source in sources:
        _require_ids(donor, source)
    return donor


def _require_same(base: Source, source: Source, what: str, mine: object, yours: object) -> None:
    if mine != yours:
        raise CheckpointError(
            f"the {what} of {base.given} and {source.given} differ, so that their codes mean different things; merge "
            "models that were trained with the same one"
        )


def _require_ids(donor: Source, source: Source) -> None:
    """CheckpointError unless every id of a source means what it means in the donor."""
    mine, yours = donor.vocabulary.to_dict(), source.vocabulary.to_dict()
    for name in MEDIA:
        span: Range = getattr(source.vocabulary, name)
        if len(span) == 0:  # rows that it does not have cannot differ
            mine[name], yours[name] = {}, {}
            mine["size"] = yours["size"] = 0
    keys = ("text", "image", "speech", "size", "special")
    different = [key for key in keys if mine[key] != yours[key]]
    if not different:
        return
    try:
        source.vocabulary.require_equal(donor.vocabulary)
        reason = different[0]
    except VocabularyError as error:
        reason = str(error).partition(";")[0]
    start = min(donor.vocabulary.image.start, donor.vocabulary.speech.start)
    raise CheckpointError(
        f"{source.given} and {donor.given} have different ids ({reason}); where only the first media code differs, "
        f"move the rows first by `dynin convert {source.given} FOLDER --to {source.layout} --text-len {start}`"
    )


def _checked(source: Source) -> Source:
    """CheckpointError unless names, shapes and dtypes are those of a network that can be merged."""
    stored, place = source.repository.tensors, source.repository.folder
    shapes = expected_shapes(source.config)
    known = {source.names[name]: shape for name, shape in shapes.items()}
    given = {name: entry.shape for name, entry in stored.items() if not name.startswith(IGNORED_PREFIX)}
    if given != known:
        wrong = sorted(name for name in given.keys() | known.keys() if given.get(name) != known.get(name))
        raise CheckpointError(
            f"{place}: config and weights do not belong together ({wrong[0]}: {given.get(wrong[0])}, expected "
            f"{known.get(wrong[0])}); fetch the model again"
        )
    if source.vocabulary.size != shapes[TABLES[0]][0]:
        raise CheckpointError(
            f"{place}: the layout of ids has {source.vocabulary.size} rows, the weights have {shapes[TABLES[0]][0]}; "
            "fetch the model again"
        )
    for name in known:
        if stored[name].dtype not in DTYPES:
            raise CheckpointError(
                f"{stored[name].shard}: {name} is stored as {stored[name].dtype}, expected {', '.join(DTYPES)}; merge "
                "the weights before they are quantized"
            )
    return source


def _tokenizers(folder: Path, text: Path) -> dict[str, str]:
    """A hash of each tokenizer in a folder."""
    found = {"text": _digest([json.dumps(repository.read_json(text), sort_keys=True).encode()])}
    for name in MEDIA:
        place = folder / name
        if is_ours(place):
            found[name] = (image_tokenizer if name == "image" else speech_tokenizer)(place).fingerprint()
        elif place.is_dir():
            found[name] = _digest(path.read_bytes() for path in sorted(place.glob("*.safetensors")))
    return found


def _digest(contents: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()

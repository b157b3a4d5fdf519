"""Several model folders to one: computed in float32 while it is written, a shard of the result at a time.

Enters: model folders and a recipe. Leaves: a model folder in the same layout of files, with `merge.json`, written whole
or not at all. Does not know the arithmetic of a method or what a recipe's rules select.

    merge.json    code, recipe with its seed, SHA-256 of every file of every input, coefficients of every part
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import dynin
from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import CheckpointError
from dynin.merging import recipe as recipes
from dynin.merging.methods import merge_chunks, seeded
from dynin.merging.plan import Piece, by_tensor, plan
from dynin.merging.recipe import MODALITY_DISENTANGLED, Recipe
from dynin.merging.source import MEDIA, Reader, Source, cut, open_source, require_equal
from dynin.model import publish, published
from dynin.model.convert import expected_shapes
from dynin.pipeline.published import VIDEO_KEY
from dynin.repository import INDEX, SUMS, read_json

REPORT = "merge.json"
CHUNK_NUMBERS = 2**18
"""Numbers of a tensor that are computed at a time: 1 MiB in float32."""
_NOT_TAKEN = (published.CONFIG, INDEX, SUMS, REPORT)
Progress = Callable[[int, int], None]
"""Called with how many tensors are done, and how many there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to merge."""

    base: str | os.PathLike[str]
    """The model that all others descend from: a folder or hub id."""
    others: tuple[str | os.PathLike[str], ...]
    recipe: Recipe = MODALITY_DISENTANGLED
    dtype: torch.dtype | None = None
    """Of the result; None takes for each tensor the widest of its inputs."""
    text_len: int | None = None
    """For published models whose config does not say where image codes begin."""
    max_shard_bytes: int | None = None
    """Of the result, of which one shard is held at a time; None for the size its layout of files is used to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Inputs that were opened, compared and hashed, so that they can be merged more than once."""

    sources: tuple[Source, ...]
    donor: Source
    """Whose config, tokenizers and layout of ids the result has."""
    sums: tuple[Mapping[str, str], ...]
    """Of every source, the SHA-256 of its files."""
    dtype: torch.dtype | None
    max_shard_bytes: int


def prepare(request: Request) -> Prepared:
    """Open the inputs, compare them, and hash them; errors as in `merge`."""
    if not request.others:
        raise CheckpointError("one model was given; give a base and at least one model that descends from it")
    sources = tuple(open_source(name, request.text_len) for name in (request.base, *request.others))
    donor = require_equal(sources)
    plan(sources, donor, request.recipe)
    is_small = donor.layout == "dynin" and donor.vocabulary.name == "embedded"
    usual = checkpoint.MAX_SHARD_BYTES if is_small else publish.MAX_SHARD_BYTES
    return Prepared(
        sources=sources,
        donor=donor,
        sums=tuple(source.sums() for source in sources),
        dtype=request.dtype,
        max_shard_bytes=request.max_shard_bytes or usual,
    )


def merge(request: Request, destination: Path, progress: Progress = lambda done, total: None) -> list[Piece]:
    """Merge models into a new folder.

    Returns:
        What was done.

    Raises:
        CheckpointError: If an input is no model, is damaged or does not fit the others, or the destination exists or
            cannot be written.
        ConfigError: If the recipe does not fit the models.
    """
    require_new(destination)
    return write(prepare(request), request.recipe, destination, progress)


def require_new(destination: Path) -> None:
    """CheckpointError if something is at the destination already."""
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise CheckpointError(f"{destination}: exists already; name a new folder, or remove it first")
    if not destination.resolve().parent.is_dir():
        raise CheckpointError(f"{destination}: the folder {destination.parent} does not exist; create it first")


def write(
    prepared: Prepared, recipe: Recipe, destination: Path, progress: Progress = lambda done, total: None
) -> list[Piece]:
    """Merge inputs that were prepared; arguments and errors as in `merge`."""
    sources, donor = prepared.sources, prepared.donor
    pieces = plan(sources, donor, recipe)
    pieces_of = by_tensor(pieces)
    shapes = expected_shapes(donor.config)
    dtypes = {name: prepared.dtype or _widest(sources, name) for name in pieces_of}
    outlines = {
        theirs: torch.empty(shapes[name], dtype=dtypes[name], device="meta") for name, theirs in donor.names.items()
    }
    ours = {theirs: name for name, theirs in donor.names.items()}
    done = 0
    with ExitStack() as stack:
        readers = [stack.enter_context(Reader(source)) for source in sources]

        def fill(stored: str, outline: Tensor) -> Tensor:
            nonlocal done
            made = torch.empty(outline.shape, dtype=outline.dtype)
            for piece in pieces_of[ours[stored]]:
                _fill(made, piece, readers, recipe.seed)
            done += 1
            progress(done, len(outlines))
            return made

        report = checkpoint.to_json(_report(prepared, recipe, pieces))
        write_files = _write_published if donor.layout == "published" else _write_ours
        place = functools.partial(
            write_files, donor=donor, outlines=outlines, report=report, fill=fill, limit=prepared.max_shard_bytes
        )
        checkpoint.replace_folder(destination, place)
    return pieces


def _fill(made: Float[Tensor, "..."], piece: Piece, readers: Sequence[Reader], seed: int) -> None:
    """Write the rows of one piece into its tensor."""
    tensor = piece.part.tensor
    step = max(1, CHUNK_NUMBERS // max(1, made[0].numel()))
    cuts = [(start, min(start + step, piece.num_rows)) for start in range(0, piece.num_rows, step)]
    for (start, stop), values in zip(cuts, _values(piece, readers, cuts, seed), strict=True):
        if piece.taken is None and not bool(torch.isfinite(values).all()):
            raise CheckpointError(
                f"{tensor}: what is merged of rows {start} to {stop} ({piece.part.group}) is not finite; look for "
                "infinite or missing numbers in the inputs"
            )
        at = 0
        for span in cut(piece.runs, start, stop):
            made[span.start : span.stop] = values[at : at + len(span)]
            at += len(span)


def _values(
    piece: Piece, readers: Sequence[Reader], cuts: Sequence[tuple[int, int]], seed: int
) -> Iterator[Float[Tensor, "n ..."]]:
    """The numbers of a piece, cut by cut: copied as they are stored, or computed in float32."""
    tensor = piece.part.tensor

    def stored(index: int, start: int, stop: int) -> Tensor:
        runs = piece.source_runs[index]
        assert runs is not None
        return readers[index].rows(tensor, runs, start, stop)

    if piece.taken is not None:
        return (stored(piece.taken, start, stop) for start, stop in cuts)

    def chunks() -> Iterator[tuple[Tensor, list[Tensor]]]:
        for start, stop in cuts:
            base, *others = (stored(index, start, stop).float() for index in range(len(readers)))
            yield base, others

    seeds = [_seed(seed, piece, index) for index in range(len(readers) - 1)]
    return merge_chunks(piece.how, chunks, seeded(seeds, piece.how.density))


def _seed(seed: int, piece: Piece, index: int) -> int:
    """Of what is dropped from one model's piece: equal in any layout of files and in any order of tensors."""
    words = f"{seed}/{piece.part.tensor}/{piece.part.group}/{index}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1


def _widest(sources: Sequence[Source], tensor: str) -> torch.dtype:
    """The dtype that holds what every input holds."""
    widest = sources[0].dtype(tensor)
    for source in sources[1:]:
        widest = torch.promote_types(widest, source.dtype(tensor))
    return widest


def _report(prepared: Prepared, recipe: Recipe, pieces: Sequence[Piece]) -> dict[str, object]:
    """What `merge.json` says."""
    roles = ["base", *(f"model {number}" for number in range(1, len(prepared.sources)))]
    inputs = [
        {"role": role, "given": source.given, "left_out": source.left_out, "sha256": dict(sums)}
        for role, source, sums in zip(roles, prepared.sources, prepared.sums, strict=True)
    ]
    return {
        "code": f"dynin {dynin.__version__}",
        "torch": torch.__version__,
        "recipe": recipes.to_dict(recipe),
        "dtype": "widest" if prepared.dtype is None else str(prepared.dtype).removeprefix("torch."),
        "vocabulary": prepared.donor.vocabulary.to_dict(),
        "inputs": inputs,
        "parts": [piece.to_dict() for piece in pieces],
    }


def _write_published(
    fresh: Path, donor: Source, outlines: Mapping[str, Tensor], report: bytes, fill: checkpoint.Fill, limit: int
) -> None:
    """Config and small files of the donor, the layout of ids with them."""
    values = read_json(donor.folder / published.CONFIG)
    values.setdefault(published.LAYOUT_KEY, donor.vocabulary.to_dict())
    if donor.video:
        values.setdefault(VIDEO_KEY, dict(donor.video))
    taken = [path for path in donor.files() if path.parent == donor.folder and path.name not in _NOT_TAKEN]
    files = {path.name: path.read_bytes() for path in taken if path.suffix != ".safetensors"}
    text = f"# Merged by the recipe {json.loads(report)['recipe']['name']}\n\n{REPORT} tells of what and how."
    files["README.md"] = publish.model_card(text, published.family_of(values, donor.folder)).encode()
    files |= {published.CONFIG: checkpoint.to_json(values), REPORT: report}
    checkpoint.write_files(fresh, outlines, files, limit, fill)
    _take_media(fresh, donor)


def _write_ours(
    fresh: Path, donor: Source, outlines: Mapping[str, Tensor], report: bytes, fill: checkpoint.Fill, limit: int
) -> None:
    """The donor's parts, the backbone's weights anew."""
    known = checkpoint.read_config(donor.folder / "backbone")
    told = json.loads(report)
    backbone = Checkpoint(
        kind="backbone",
        config=known.config,
        tensors=outlines,
        vocabulary=donor.vocabulary,
        fingerprints=known.fingerprints,
        provenance={
            "code": told["code"],
            "merged by": told["recipe"]["name"],
            "merged from": [entry["given"] for entry in told["inputs"]],
        },
    )
    checkpoint.write_part(fresh / "backbone", backbone, limit, fill)
    shutil.copytree(donor.folder / "text", fresh / "text")
    _take_media(fresh, donor)
    parts = checkpoint.read_config(donor.folder).config["parts"]
    checkpoint.write_part(fresh, Checkpoint(kind="model", config={"parts": parts}, files={REPORT: report}))


def _take_media(fresh: Path, donor: Source) -> None:
    for name in MEDIA:
        if (donor.folder / name).is_dir():
            shutil.copytree(donor.folder / name, fresh / name)

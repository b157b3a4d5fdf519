"""A whole model in one folder: network and tokenizers, written and read, verified to belong together.

Enters: a `Dynin`, or a folder or hub id. Leaves: a folder, or a `Dynin`. The layout of files is `checkpoint.py`'s; here
it is said what each part's config means.

    backbone/  config: the sizes of the network      image/  speech/  config: the sizes of the codec
    text/      tokenizer.json                         backbone's config also: frames and rate of videos
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.config import suggest
from dynin.errors import CheckpointError, RequestError
from dynin.model.arranged import is_arranged
from dynin.model.config import ModelConfig
from dynin.model.family import FAMILIES, first_code, require_known
from dynin.model.memory import weight_bytes
from dynin.model.published import is_published
from dynin.model.quantize import is_reformed, reform_of
from dynin.model.room import require_memory
from dynin.model.transformer import Transformer
from dynin.pipeline.description import is_description
from dynin.pipeline.description import read as read_description
from dynin.pipeline.dynin import Dynin
from dynin.pipeline.parts import MediaSources, held_bytes, is_ours, small_image, small_speech, with_media
from dynin.pipeline.policies import POLICIES
from dynin.pipeline.published import load as load_published
from dynin.repository import SUMS, require_replaceable, verify
from dynin.tokenizers.bundle import Tokenizers
from dynin.tokenizers.small.image import SmallImageTokenizer
from dynin.tokenizers.small.speech import SmallSpeechTokenizer
from dynin.tokenizers.text import ByteLevelText
from dynin.tokenizers.video import VideoTokenizer
from dynin.types import Modality
from dynin.vocabulary import Vocabulary

EMBEDDED_FOLDER = Path(__file__).resolve().parents[1] / "assets" / "model"
"""The model that ships with the code."""
Module = TypeVar("Module", bound=nn.Module)
PARTS = ("backbone", "image", "speech", "text")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def save(
    folder: Path,
    model: Dynin,
    *,
    dtype: torch.dtype = torch.bfloat16,
    provenance: Mapping[str, object] | None = None,
) -> None:
    """Write a model with the embedded kind of tokenizers; all parts or none.

    Args:
        dtype: Of every stored weight. Loading gives float32 again, rounded.
        provenance: Plain values: data, steps, hours, hardware, scores.

    Raises:
        CheckpointError: If the tokenizers are of another kind, or the folder holds something else or cannot be written.
    """
    require_replaceable(folder)
    image, speech, text = model.tokenizers.image, model.tokenizers.speech, model.tokenizers.text
    if is_reformed(model.model):
        raise CheckpointError("the weights are held in fewer bits and are not written; load them without `weights`")
    if is_arranged(model.model):
        raise CheckpointError("the weights are laid out in tiles and are not written; save the model before `arranged`")
    if not (
        isinstance(image, SmallImageTokenizer)
        and isinstance(speech, SmallSpeechTokenizer)
        and isinstance(text, ByteLevelText)
    ):
        raise CheckpointError(
            "only models with the small tokenizers can be written; convert the others by their own tools"
        )
    video = model.tokenizers.video
    parts = {
        "image": Checkpoint(kind="image", config=asdict(image.config), tensors=_tensors(image, dtype)),
        "speech": Checkpoint(kind="speech", config=asdict(speech.config), tensors=_tensors(speech, dtype)),
        "text": Checkpoint(kind="text", config={}, files={"tokenizer.json": text.to_json().encode()}),
    }
    rounded = (small_image(parts["image"]), small_speech(parts["speech"]))
    fingerprints = dict(zip(("image", "speech"), (codec.fingerprint() for codec in rounded), strict=True))
    parts["backbone"] = Checkpoint(
        kind="backbone",
        config={
            "network": model.model.config.to_dict(),
            "video": {"num_frames": video.num_frames, "rate_hz": video.rate_hz},
        },
        tensors=_tensors(model.model, dtype),
        vocabulary=model.vocabulary,
        fingerprints={**fingerprints, "text": text.fingerprint()},
        provenance=provenance or {},
    )
    checkpoint.save_model(folder, parts)


def load(
    path_or_id: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    sources: MediaSources = MediaSources(),  # noqa: B008 - frozen
    text_len: int | None = None,
    weights: str = "",
) -> Dynin:
    """Read and verify a model; None takes the one that ships with the code.

    Args:
        path_or_id: A folder written by `save`, a folder in the published layout (Dynin-Omni, MMaDA, LLaDA),
            `org/name` on the model hub, with `@revision` behind it to pin one, or a TOML file that tells of a model.
        device: Where the network runs; None leaves it where tensors are made by default. The embedded tokenizers stay
            on the CPU.
        dtype: Of the network, also by name; None takes float32 for models of ours, and published ones as stored.
        sources: Where the media tokenizers of a published model are, if not where its family has them.
        text_len: For published models whose config does not say where image codes begin.
        weights: int8 or int4: the matrices of the network in fewer bits (the extra `quantize`); such a model can be
            used, but neither saved nor trained.

    Raises:
        CheckpointError: If a file is missing or damaged, the parts do not belong together, or the weights do not fit
            the memory of the device.
        RequestError: If there is no such dtype or form of weights.
    """
    if path_or_id is not None and is_description(path_or_id):
        told = read_description(path_or_id)
        given = MediaSources(image=sources.image or told.image or None, speech=sources.speech or told.speech or None)
        return load(
            told.backbone,
            device=device,
            dtype=dtype or told.dtype or None,
            sources=given,
            text_len=text_len or told.text_len or None,
            weights=weights or told.weights,
        )
    dtype = _dtype(dtype)
    if path_or_id is None and not EMBEDDED_FOLDER.is_dir():
        raise CheckpointError(f"{EMBEDDED_FOLDER}: the embedded model is missing; restore it, or name another model")
    folder = EMBEDDED_FOLDER if path_or_id is None else checkpoint.resolve(path_or_id)
    if is_published(folder):
        return load_published(folder, device=device, dtype=dtype, sources=sources, text_len=text_len, weights=weights)
    require_ours(folder)
    _require_room(folder, sources, (device, dtype or torch.float32, weights))
    parts = checkpoint.load_model(folder)
    needed = PARTS if _is_embedded(parts) else ("backbone", "text")
    missing = [name for name in needed if name not in parts]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}; a model has {', '.join(needed)}")
    backbone = parts["backbone"]
    if backbone.vocabulary is None or backbone.vocabulary.name not in POLICIES:
        raise CheckpointError(f"{folder / 'backbone'} has no known vocabulary layout; known: {', '.join(POLICIES)}")
    require_known(backbone.vocabulary, folder / "backbone")
    _require_heeded(folder, backbone.vocabulary, sources, text_len)
    try:
        text = ByteLevelText.from_json(parts["text"].files["tokenizer.json"].decode(), f"{folder}/text")
        if _is_embedded(parts):
            tokenizers = _tokenizers(parts, text)
        else:
            tokenizers = with_media(folder, text, backbone.vocabulary, sources, device=device)
        network = _network(backbone, device, dtype or torch.float32, weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError | RequestError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{folder}: a config does not fit its weights ({reason}); fetch the model again"
        ) from error
    _require_match(backbone, backbone.vocabulary, tokenizers)
    return Dynin.assemble(network, tokenizers, backbone.vocabulary)


def require_ours(folder: Path) -> None:
    """CheckpointError for a folder that was written by nobody whose models are known here."""
    config = folder / "config.json"
    is_marked = is_ours(folder) if config.is_file() else (folder / SUMS).is_file()
    if folder.is_dir() and not is_marked:
        what = "names no model_type and no format_version" if config.is_file() else "missing"
        known = ", ".join(name for family in FAMILIES.values() for name in family.model_types)
        raise CheckpointError(
            f"{config}: {what}; expected a published model ({known}) or one that dynin wrote: name its folder"
        )


def _require_room(folder: Path, sources: MediaSources, how: tuple[torch.device | str | None, torch.dtype, str]) -> None:
    """CheckpointError if a model of ours does not fit the memory, before more than the backbone's config is read.

    Args:
        how: Device, dtype and form of the weights.

    Raises:
        RequestError: If that form is not to be had.
    """
    device, dtype, weights = how
    reform_of(weights, device)
    place = folder / "backbone"
    try:
        verify(place, [place / "config.json"])
        told = checkpoint.read_config(place)
        config = ModelConfig.from_dict(told.config["network"])  # type: ignore[arg-type]
    except (OSError, KeyError, TypeError, ValueError):
        return  # what is wrong is said when the part is read
    beside = sum(held_bytes(folder, told.vocabulary, sources).values()) if told.vocabulary else 0
    require_memory(str(folder), sum(weight_bytes(config, dtype.itemsize, weights).values()), device, beside)


def _require_heeded(folder: Path, layout: Vocabulary, sources: MediaSources, text_len: int | None) -> None:
    """RequestError for settings that a model of ours, which stores its layout, would pass over."""
    if text_len not in (None, first_code(layout)):
        raise RequestError(
            f"{folder}: media codes begin at {first_code(layout):,}, but text_len is {text_len:,}; leave text_len out, "
            "or move the rows with `dynin convert MODEL FOLDER --text-len N`"
        )
    if layout.name == "embedded" and (sources.image or sources.speech):
        raise RequestError(
            f"{folder}: has the embedded kind of tokenizers, which it was trained with; leave image and speech out"
        )


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A floating-point dtype, also by name."""
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is not None and (not isinstance(found, torch.dtype) or found not in DTYPES) or (dtype and found is None):
        names = [str(known).removeprefix("torch.") for known in DTYPES]
        raise RequestError(f"unknown dtype {dtype!r}{suggest(str(dtype), names)}")
    return found


def _tensors(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The weights, rounded; integers stay as they are."""
    return {
        name: value.detach().to(dtype) if value.is_floating_point() else value.detach()
        for name, value in module.state_dict().items()
    }


def _is_embedded(parts: Mapping[str, Checkpoint]) -> bool:
    """Whether a model has the small layout, and with it the small tokenizers."""
    backbone = parts.get("backbone")
    return backbone is None or backbone.vocabulary is None or backbone.vocabulary.name == "embedded"


def _tokenizers(parts: Mapping[str, Checkpoint], text: ByteLevelText) -> Tokenizers:
    image = small_image(parts["image"])
    frames: Mapping[str, float] = parts["backbone"].config["video"]  # type: ignore[assignment]
    video = VideoTokenizer(image=image, num_frames=int(frames["num_frames"]), rate_hz=float(frames["rate_hz"]))
    return Tokenizers(text=text, image=image, video=video, speech=small_speech(parts["speech"]))


def _network(part: Checkpoint, device: torch.device | str | None, dtype: torch.dtype, weights: str) -> Transformer:
    network: Mapping[str, object] = part.config["network"]  # type: ignore[assignment]
    config = ModelConfig.from_dict(network)
    reform = reform_of(weights, device)
    with torch.device("meta"):
        model = Transformer(config)
    checkpoint.require_fit({name: tuple(value.shape) for name, value in model.state_dict().items()}, part.tensors)
    state = {
        name: reform(name, value.to(device=device, dtype=dtype, copy=bool(weights)))
        for name, value in part.tensors.items()
    }
    model.load_state_dict(state, assign=True)
    return model


def _require_match(part: Checkpoint, vocabulary: Vocabulary, tokenizers: Tokenizers) -> None:
    """CheckpointError unless network, vocabulary and tokenizers fit each other."""
    network: Mapping[str, int] = part.config["network"]  # type: ignore[assignment]
    if network["num_rows"] != vocabulary.size:
        raise CheckpointError(
            f"the network has {network['num_rows']} rows, but its vocabulary {vocabulary.size}; fetch the model again"
        )
    for modality in Modality:
        size, room = tokenizers.codebook_size(modality), len(vocabulary.range_of(modality))
        if size > room:
            raise CheckpointError(
                f"the {modality} tokenizer has {size} codes, but the vocabulary holds {room}; "
                "load the tokenizers that the model was trained with"
            )
    names = ("text", "image", "speech") if vocabulary.name == "embedded" else tuple(part.fingerprints)
    for name in names:
        if part.fingerprints.get(name) != tokenizers.fingerprint(name):
            raise CheckpointError(
                f"the {name} tokenizer is not the one that the network was trained with (fingerprints differ); "
                "fetch the model again"
            )

"""VIRST models for `dynin virst`: loaded, asked, told apart.

Enters: folders of weights, settings. Leaves: callables from an example to masks. Does not know scores.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dynin.cli.progress import Progress
from dynin.errors import RequestError

if TYPE_CHECKING:
    from dynin.data.referring.example import ReferringExample
    from dynin.data.referring.source import ReferringSource
    from dynin.evaluation.segmentation.ablation import Setting
    from dynin.evaluation.segmentation.floors import Masks, Predict
    from dynin.virst.panel import ClipMasks, Looked, Panel, Pixels
    from dynin.virst.segment import SegmentConfig

SEED_FOLDER = re.compile(r"seed-(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """How a model goes through a video."""

    policy: str
    num_anchors: int | None
    num_attended: int | None
    threshold: float
    likeness: Path | None = None

    def __post_init__(self) -> None:
        """RequestError for what cannot be meant."""
        if not 0 <= self.threshold <= 1:
            raise RequestError(f"--threshold is {self.threshold}, expected a probability from 0 to 1")
        if self.policy == "text" and self.likeness is None:
            raise RequestError("anchors by text need --likeness DIR, a CLIP that compares frames with the sentence")


def predictor(model: str | Path, asked: Asked, *, device: str, seed: int = 0) -> "Predict":
    """Load a model; masks follow from it, the setting, the seed and the example alone, in whatever order it is asked.

    Args:
        seed: What is drawn for an example is drawn from this and the names of its video and sentence.
    """
    from dynin.cli import device as devices
    from dynin.virst import similarity
    from dynin.virst.models import load
    from dynin.virst.segment import Segmenter

    config = _segment_config(asked.policy, asked.num_anchors, asked.num_attended, asked.threshold)
    likeness = None if asked.likeness is None else similarity.load(asked.likeness)
    loaded = load(model, device=devices.resolve(device))

    def predict(example: "ReferringExample") -> "Masks":
        drawn = zlib.crc32(f"{seed}/{example.video}/{example.sentence_id}".encode())
        return Segmenter(loaded, config, likeness=likeness, seed=drawn).predict(example)

    return predict


def predict(
    source: "ReferringSource", model: str, asked: Asked, place: Path, *, device: str, about: Mapping[str, object]
) -> None:
    """Write the masks of every pair that has none yet below a folder."""
    from dynin import checkpoint
    from dynin.evaluation.segmentation.submit import predict_folder

    folder = Path(checkpoint.resolve(model))
    told = {name: str(value) for name, value in asdict(asked).items()}
    facts = {**about, **told, "weights": fingerprint(folder)}
    bar = Progress("predicted: video", len(source))
    predict_folder(
        source,
        predictor(folder, asked, device=device),
        place,
        about=facts,
        progress=lambda done, total: bar(done),
    )


def fingerprints(checkpoints: Path) -> dict[str, dict[int, str]]:
    """Weights below `<name>/seed-<n>` (or `<name>/seed-<n>/model`), by name and seed.

    Raises:
        RequestError: If the folder is missing or holds none.
    """
    found: dict[str, dict[int, str]] = {}
    for name, seed, folder in _folders(checkpoints):
        found.setdefault(name, {})[seed] = fingerprint(folder)
    if not found:
        raise RequestError(
            f"{checkpoints}: holds no <name>/seed-<n> with a config.json, where trained models are expected; give "
            "their folder"
        )
    return found


def predictors(
    checkpoints: Path, *, threshold: float, likeness: Path | None, device: str
) -> "Callable[[Setting, int], Predict]":
    """What loads the weights of a setting and seed, and asks them as the setting says."""
    places = {(name, seed): folder for name, seed, folder in _folders(checkpoints)}

    def load(setting: "Setting", seed: int) -> "Predict":
        asked = Asked(
            policy=setting.anchors,
            num_anchors=setting.num_anchors,
            num_attended=setting.num_attended,
            threshold=threshold,
            likeness=likeness if setting.anchors == "text" else None,
        )
        return predictor(places[setting.model, seed], asked, device=device, seed=seed)

    return load


def panels(
    checkpoints: Path, *, threshold: float, likeness: Path | None, device: str, is_halved: bool = False
) -> "Callable[[str, int], _Panel]":
    """What loads the weights of a name and seed, to be asked about several videos in several ways at once.

    Args:
        is_halved: Compute the backbone's matrix products in bfloat16, as the small VIRST is trained.
    """
    places = {(name, seed): folder for name, seed, folder in _folders(checkpoints)}

    def load_panel(name: str, seed: int) -> _Panel:
        from dynin.cli import device as devices
        from dynin.virst import similarity
        from dynin.virst.models import load
        from dynin.virst.panel import Panel

        place = devices.resolve(device)
        compare = None if likeness is None else similarity.load(likeness)
        if compare is not None:
            compare.network.to(place)
        model = load(places[name, seed], device=place)
        model.is_backbone_halved = is_halved
        return _Panel(panel=Panel(model, likeness=compare), threshold=threshold, seed=seed)

    return load_panel


@dataclass(kw_only=True, slots=True, eq=False)
class _Panel:
    """Loaded weights that answer settings of the tables."""

    panel: "Panel"
    threshold: float
    seed: int
    watched: "tuple[tuple[object, ...], Pixels] | None" = None
    """Videos that were asked about before this, as other settings may ask about them with other sentences."""

    def together(
        self, videos: "Sequence[Sequence[ReferringExample]]", settings: "Sequence[Setting]"
    ) -> "Iterator[list[list[ClipMasks]]]":
        """As `evaluation.segmentation.study.Asked` wants it."""
        from dynin.virst.panel import alike

        groups = alike(videos)
        looks = [self._look([videos[place] for place in group], settings[0].change) for group in groups]
        for setting in settings:
            answers: list[list[ClipMasks]] = [[] for _ in videos]
            for group, looked in zip(groups, looks, strict=True):
                masks = self.panel.masks(looked, self._config(setting), seed=self.seed)
                for row, found in zip(looked.videos, masks, strict=True):
                    answers[group[row]].append(found)
            yield answers

    def alone(self, example: "ReferringExample", setting: "Setting") -> "Masks":
        """As `evaluation.segmentation.study.Asked` wants it."""
        from dynin.virst.panel import drawn_for
        from dynin.virst.segment import Segmenter

        panel = self.panel
        drawn = drawn_for(example, self.seed)
        return Segmenter(panel.model, self._config(setting), likeness=panel.likeness, seed=drawn).predict(example)

    def _look(self, videos: "list[Sequence[ReferringExample]]", change: str) -> "Looked":
        """Prompts; frames that were watched just before are not watched again."""
        key = (change == "frames", *(examples[0].video for examples in videos))
        if self.watched is None or self.watched[0] != key:
            self.watched = key, self.panel.watch([examples[0] for examples in videos])
        return self.panel.read(videos, self.watched[1])

    def _config(self, setting: "Setting") -> "SegmentConfig":
        return _segment_config(setting.anchors, setting.num_anchors, setting.num_attended, self.threshold)


def _segment_config(
    policy: str, num_anchors: int | None, num_attended: int | None, threshold: float
) -> "SegmentConfig":
    """How a video is gone through."""
    from dynin.virst.anchors import policy_of
    from dynin.virst.segment import SegmentConfig
    from dynin.virst.tracker import TrackerConfig

    return SegmentConfig(
        anchors=policy_of(policy, num_anchors),
        tracker=TrackerConfig(num_attended=num_attended),
        threshold=threshold,
    )


def fingerprint(folder: Path) -> str:
    """Of the content of every file of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def machine(device: str) -> str:
    """What seconds were measured on."""
    import torch

    from dynin.cli import device as devices

    place = devices.resolve(device)
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    return f"{place.type}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def _folders(checkpoints: Path) -> list[tuple[str, int, Path]]:
    """Trained weights by name and seed."""
    found = []
    for place in sorted(checkpoints.glob("*/seed-*")):
        match = SEED_FOLDER.fullmatch(place.name)
        folder = place if (place / "config.json").is_file() else place / "model"
        if match is not None and (folder / "config.json").is_file():
            found.append((place.parent.name, int(match.group(1)), folder))
    return found

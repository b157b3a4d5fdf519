"""A step to a loss, by stage: which frames get masks, from where, and what they cost; and text, where there is some.

Enters: a VIRST and a `Step`. Leaves: a scalar and figures. Does not know optimizers, files or where batches come from.

    alignment, few_frame    each row: some frames drawn for it, each from its own prompts
    propagation             rows of as many frames together: the same anchors; frames near them, from memory
    warm                    as propagation, with boxes of the true masks for prompts
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dynin.errors import ConfigError
from dynin.virst import losses
from dynin.virst.backbone.protocol import TextScores
from dynin.virst.batch import Batch, TextBatch
from dynin.virst.branch.protocol import MaskOutput
from dynin.virst.losses import mask_parts
from dynin.virst.model import Prompted, Virst
from dynin.virst.tracker import ClipFeatures, Tracker, TrackerConfig, plan, track
from dynin.virst.training.boxes import BoxPrompter
from dynin.virst.training.config import Part, VirstTrainConfig
from dynin.virst.training.source import Step


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Cost:
    """Of one frame of some rows, or of some frames."""

    parts: losses.Parts
    """Of the loss, unweighted."""
    overlap: Float[Tensor, " R"]
    """IoU of the mask as it is used."""
    is_visible: Bool[Tensor, " R"]
    """Whether there is something to be found."""
    is_propagated: bool = False
    """Whether the mask comes from memory."""


class Objective(nn.Module):
    """The model with what its stage needs besides; everything that a step runs lies in one `forward`."""

    def __init__(self, model: Virst, config: VirstTrainConfig) -> None:
        """Take a model and say what of it learns.

        Raises:
            ConfigError: If nothing would, or the loss asks for places that the model does not tell.
        """
        super().__init__()
        self.model, self.config = model, config
        if config.loss.places and not model.config.fusion.has_points:
            raise ConfigError(
                f"setting 'loss.places' is {config.loss.places}, and this model has no points that could lie anywhere; "
                "set it to 0, or give the model points ('fusion.has_points', or 'adds' beside 'init')"
            )
        generator = torch.Generator().manual_seed(config.seed)
        is_warm = config.stage == "warm"
        self.boxes = BoxPrompter(model.config.num_st, model.branch.width, generator) if is_warm else None
        has_pointer = getattr(model.second, "pointer", None) is not None
        wants_pointer = config.loss.cells and not is_warm and not has_pointer
        self.pointer = nn.Linear(model.backbone.width, 1) if wants_pointer else None
        if self.pointer is not None:
            nn.init.zeros_(self.pointer.weight)
            nn.init.zeros_(self.pointer.bias)
        model.is_backbone_halved = config.dtype == "bfloat16_backbone"
        model.frames_at_once = config.frames_at_once
        learn(model, config)

    @property
    def tracker(self) -> TrackerConfig:
        """How masks are made; scores weigh, so that they get gradients."""
        return TrackerConfig(choice=self.config.choice, gate=self.config.loss.gate)

    def forward(
        self, step: Step, generator: torch.Generator, *, drops: bool = True
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The loss of a step, and figures: each part of it, IoU where the object is visible, presence told right.

        Args:
            generator: Draws anchors, and what is dropped and hidden.
            drops: Whether anything is dropped, as only learning wants it.
        """
        batch = step.batch
        assert batch.masks is not None
        text = None if step.text is None else self._told(step.text, generator)
        pointed: dict[str, Float[Tensor, ""]] = {}
        if self.boxes is not None:
            costs = self._warm(batch, batch.masks, generator)
        else:
            found = self.model(batch, generator if drops else None)
            pointed = self._pointed(found, batch.masks)
            follow = self._propagated if self.config.has_memory else self._prompted
            costs = follow(found, batch, batch.masks, generator)
        loss = losses.total([cost.parts for cost in costs], text, self.config.loss)
        figures = _figures(costs)
        for name, cost in pointed.items():
            loss = loss + getattr(self.config.loss, name) * cost
            figures[name] = float(cost.detach())
        if text is not None:
            figures["token"] = float(losses.token_part(text).detach())
        return loss, figures

    def _pointed(self, found: Prompted, truth: Tensor) -> dict[str, Float[Tensor, ""]]:
        """What it costs to tell which patches are of the target, and where it lies in them.

        The backbone's states of the frames say it: to the second fusion where it looks at them, and to what is thrown
        away with the stage elsewhere.
        """
        costs = {}
        if self.config.loss.places:
            costs["places"] = self._placed(found, truth)
        if not self.config.loss.cells:
            return costs
        cells = found.reading.cells
        if cells is None or cells.states.shape[1] != truth.shape[1]:
            raise ConfigError(
                "setting 'loss.cells' is above 0: it needs a backbone whose states of frames know the sentence, and "
                "'frames.num_seg' not below 'frames.num_frames'"
            )
        logits = found.prompts.cell_logits
        if logits is None:
            assert self.pointer is not None
            logits = self.pointer(cells.states.float()).squeeze(-1)
        return costs | {"cells": losses.cells_part(logits.float(), cells, truth)}

    def _placed(self, found: Prompted, truth: Tensor) -> Float[Tensor, ""]:
        """What it costs to tell where the target lies; errors as in the constructor."""
        places, cells = found.prompts.cell_places, found.reading.cells
        assert places is not None
        assert cells is not None
        return losses.places_part(places.float(), cells, truth)

    def _told(self, text: TextBatch, generator: torch.Generator) -> TextScores | None:
        """What the backbone says of answers; no feature changes the [ST] embeddings there."""
        backbone = self.model.backbone
        st = backbone.st_embeddings().expand(len(text.sentences), -1, -1)
        return self.model.read(text.clips, text.sentences, st, generator).text

    def _prompted(self, found: Prompted, batch: Batch, truth: Tensor, generator: torch.Generator) -> list[Cost]:
        """Masks of frames drawn for each row."""
        pairs = [
            (row, frame)
            for row, video in enumerate(batch.sentences.videos)
            for frame in self._anchors(len(batch.frames[video]), generator)
        ]
        output = self.model.own_masks(found, pairs, self.tracker)
        rows, frames = zip(*pairs, strict=True)
        return [self._cost(output, truth[list(rows), list(frames)])]

    def _propagated(self, found: Prompted, batch: Batch, truth: Tensor, generator: torch.Generator) -> list[Cost]:
        """Masks of anchors and of frames near them."""
        made: list[Cost] = []
        for count, rows in _alike(batch).items():
            anchors, frames = self._near(count, generator)
            tracked = self.model.tracked(found, rows, anchors, frames, self.tracker, self.config.propagation)
            made += [self._cost(output, truth[rows, frame], frame not in anchors) for frame, output in tracked]
        return made

    def _warm(self, batch: Batch, truth: Tensor, generator: torch.Generator) -> list[Cost]:
        """The same from boxes."""
        assert self.boxes is not None
        features = self.model.features(batch)
        made: list[Cost] = []
        for count, rows in _alike(batch).items():
            anchors, frames = self._near(count, generator)
            videos = tuple(batch.sentences.videos[row] for row in rows)
            clip = ClipFeatures(features=features, num_frames=batch.is_seen.shape[1], videos=videos)
            prompts = {anchor: self.boxes(truth[rows, anchor], self.model.branch.place) for anchor in anchors}
            steps = plan(frames, anchors, self.config.propagation)
            tracked = track(Tracker(self.model.branch, self.tracker), steps, clip, prompts)
            made += [self._cost(output, truth[rows, frame], frame not in anchors) for frame, output in tracked]
        return made

    def _anchors(self, count: int, generator: torch.Generator) -> list[int]:
        """Which of so many frames are prompted, in time order."""
        wanted = self.config.num_anchors
        if self.config.anchors == "first":
            return list(range(min(wanted, count)))
        return sorted(torch.randperm(count, generator=generator)[:wanted].tolist())

    def _near(self, count: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
        """Anchors among so many frames, and the frames that get masks."""
        anchors = self._anchors(count, generator)
        reach = range(-self.config.before, self.config.after + 1)
        return anchors, sorted({anchor + by for anchor in anchors for by in reach if 0 <= anchor + by < count})

    def _cost(self, output: MaskOutput, truth: Tensor, is_propagated: bool = False) -> Cost:
        parts = mask_parts(output, truth, self.config.loss)
        used = nn.functional.interpolate(
            output.gated_logits("hard").detach()[:, None], size=truth.shape[-2:], mode="bilinear", align_corners=False
        )
        is_visible = truth.flatten(1).any(dim=1)
        overlap = losses.overlap(used[:, 0], truth)
        return Cost(parts=parts, overlap=overlap, is_visible=is_visible, is_propagated=is_propagated)


RECALL = (
    "memory_attention",
    "memory_encoder",
    "memory_temporal_positional_encoding",
    "object_pointer_proj",
    "temporal_positional_encoding_projection_layer",
    "no_object_pointer",
    "occlusion_spatial_embedding_parameter",
    "spatial_perceiver",
)
"""Of a branch, what only frames without prompts depend on."""


def learn(model: Virst, config: VirstTrainConfig) -> None:
    """Let what the stage names learn, of what can learn at all; the rest stays as it is.

    Raises:
        ConfigError: If nothing is left to learn.
    """
    for name, value in model.named_parameters():
        value.requires_grad_(value.requires_grad and bool(part_of(name) & set(config.learning)))
    if not any(value.requires_grad for value in model.parameters()):
        raise ConfigError(f"setting 'learns' is {list(config.learning)}: nothing of this model can learn there")


def part_of(name: str) -> set[Part]:
    """Which parts a parameter of a VIRST belongs to; see `config.LEARNS`."""
    if name.startswith("backbone."):
        return {"backbone"}
    if not name.startswith("branch."):
        return {"fusions"}
    if ".vision_encoder." in name:
        return {"encoder"}
    return {"memory", "recall"} if any(f".{part}" in name for part in RECALL) else {"memory"}


def _alike(batch: Batch) -> dict[int, list[int]]:
    """Rows by the number of frames of their videos."""
    rows = defaultdict(list)
    for row, video in enumerate(batch.sentences.videos):
        rows[len(batch.frames[video])].append(row)
    return dict(rows)


def _figures(costs: list[Cost]) -> dict[str, float]:
    """Means over frames and rows."""
    whole = {name: torch.cat([cost.parts[name] for cost in costs]).detach().mean() for name in costs[0].parts}
    overlaps = torch.cat([cost.overlap for cost in costs])
    is_visible = torch.cat([cost.is_visible for cost in costs])
    figures: dict[str, float] = {name: float(value) for name, value in whole.items()}
    if bool(is_visible.any()):
        figures["iou_visible"] = float(overlaps[is_visible].mean())
    followed = [cost.overlap[cost.is_visible] for cost in costs if cost.is_propagated]
    if followed and len(overlap := torch.cat(followed)):
        figures["iou_propagated"] = float(overlap.mean())
    if not bool(is_visible.all()):
        figures["right_empty"] = float((overlaps[~is_visible] == 1).float().mean())
    return figures

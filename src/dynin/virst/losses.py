"""What a mask costs: pixels, overlap, the branch's own estimate of it, presence; and text.

Enters: `MaskOutput` of one frame for R rows, the true masks; scores of text. Leaves: parts of the loss by name, one
number a row. Does not know networks, frames or sentences.

    L = bce + dice + 0.05 |IoU - predicted IoU| + 0.05 presence + token
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dynin.virst.backbone.protocol import CellStates, TextScores
from dynin.virst.branch.protocol import MaskOutput
from dynin.virst.config import LossConfig

DICE_SCALE, DICE_EPS = 1000.0, 1e-6
"""Sums of pixels are divided by the first before the second is added: a thousandth of a pixel, at any size."""
Parts = Mapping[str, Float[Tensor, " R"]]


def bce(logits: Float[Tensor, "R Y X"], masks: Bool[Tensor, "R Y X"]) -> Float[Tensor, " R"]:
    """Binary cross-entropy, in the mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype), reduction="none").mean(dim=(1, 2))


def dice(logits: Float[Tensor, "R Y X"], masks: Bool[Tensor, "R Y X"]) -> Float[Tensor, " R"]:
    """One less the Dice coefficient of probabilities; 0 where both are empty."""
    probs, truth = logits.sigmoid().flatten(1), masks.to(logits.dtype).flatten(1)
    shared = 2 * (probs * truth).sum(dim=1) / DICE_SCALE
    whole = (probs.sum(dim=1) + truth.sum(dim=1)) / DICE_SCALE
    return 1 - (shared + DICE_EPS) / (whole + DICE_EPS)


def overlap(logits: Float[Tensor, "*R Y X"], masks: Bool[Tensor, "*R Y X"]) -> Float[Tensor, "*R"]:
    """IoU of pixels above 0, without a gradient; 1 where both are empty."""
    found = logits.detach() > 0
    shared, either = ((found & masks).sum(dim=(-2, -1)), (found | masks).sum(dim=(-2, -1)))
    return torch.where(either > 0, shared / either.clamp(min=1), 1.0).to(logits.dtype)


def mask_parts(output: MaskOutput, masks: Bool[Tensor, "R Y X"], config: LossConfig) -> dict[str, Float[Tensor, " R"]]:
    """What one frame costs each row, unweighted: bce, dice, iou, occlusion.

    Logits are enlarged to the size of the true masks. The chosen candidate is compared, as it is in evaluation; the
    estimates of all candidates are.

    Parity:
        Published training takes a single-mask token and published evaluation others; here `TrackerConfig.choice` rules
        both. Published IoU is that of the gated mask; here that of the mask itself, so that an estimate means the same
        whether or not the object is judged visible.
    """
    size = masks.shape[-2:]
    logits = _enlarged(output.gated_logits(config.gate)[:, None].float(), size)[:, 0]
    candidates = _enlarged(output.candidate_logits.float(), size)
    truth = overlap(candidates, masks[:, None].expand(candidates.shape))
    is_visible = masks.flatten(1).any(dim=1).to(logits.dtype)
    return {
        "bce": bce(logits, masks),
        "dice": dice(logits, masks),
        "iou": (output.candidate_iou - truth).abs().mean(dim=1),
        "occlusion": F.binary_cross_entropy_with_logits(output.object_score.float(), is_visible, reduction="none"),
    }


def cells_part(logits: Float[Tensor, "R T P"], cells: CellStates, masks: Bool[Tensor, "R T Y X"]) -> Float[Tensor, ""]:
    """What telling costs which patches of a frame hold what is meant: the fullest one, others by their share of it.

    Binary cross-entropy, in the mean over patches of all frames that there are.
    """
    shares = F.adaptive_avg_pool2d(masks.to(logits.dtype), cells.grid).flatten(2)  # R T P
    truth = shares / shares.amax(dim=2, keepdim=True).clamp(min=1e-6)
    each = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=2)
    return (each * cells.is_frame).sum() / cells.is_frame.sum()


def places_part(
    places: Float[Tensor, "R T P 2"], cells: CellStates, masks: Bool[Tensor, "R T Y X"]
) -> Float[Tensor, ""]:
    """How far places lie from the middle of what is meant and near: in x plus y, in shares of the frame's sides.

    Near is what lies in a patch or half a patch around it; the mean is over patches that hold at least half as much of
    what is meant as the fullest one.
    """
    (rows, columns), (height, width) = cells.grid, masks.shape[-2:]
    truth = masks.to(places.dtype)
    across = (torch.arange(width, device=masks.device) + 0.5) / width
    down = (torch.arange(height, device=masks.device) + 0.5) / height

    def near(values: Float[Tensor, "R T Y X"]) -> Float[Tensor, "R T P"]:
        quarters = F.pad(F.adaptive_avg_pool2d(values, (2 * rows, 2 * columns)), (1, 1, 1, 1))
        return F.avg_pool2d(quarters, 4, stride=2).flatten(2)

    amount = near(truth).clamp(min=1e-6)
    middles = torch.stack((near(truth * across), near(truth * down[:, None])), dim=-1) / amount[..., None]
    shares = F.adaptive_avg_pool2d(truth, cells.grid).flatten(2)
    most = shares.amax(dim=2, keepdim=True)
    is_meant = (shares >= 0.5 * most) & (most > 0) & cells.is_frame[..., None]
    return ((places - middles).abs().sum(dim=-1) * is_meant).sum() / is_meant.sum().clamp(min=1)


def token_part(scores: TextScores) -> Float[Tensor, ""]:
    """What the text costs that the backbone learns beside the masks, in the mean over rows that have any.

    Parity: [ST] tokens are never foretold, as their labels are left out of the published loss.
    """
    entropy = F.cross_entropy(scores.logits, scores.targets, reduction="none")
    return (entropy * scores.weights).sum() / max(1, scores.num_rows)


def total(frames: Sequence[Parts], text: TextScores | None, config: LossConfig) -> Float[Tensor, ""]:
    """The weighted sum, in the mean over frames and rows.

    Parity:
        The published code adds the IoU part twice; `config.is_iou_twice` does so.
    """
    weights = {"bce": config.bce, "dice": config.dice, "iou": config.iou, "occlusion": config.occlusion}
    if config.is_iou_twice:
        weights["iou"] *= 2
    whole = {name: torch.cat([parts[name] for parts in frames]).mean() for name in weights}
    summed = torch.stack([weight * whole[name] for name, weight in weights.items()]).sum()
    return summed if text is None else summed + config.token * token_part(text)


def _enlarged(logits: Float[Tensor, "R M y x"], size: tuple[int, int] | torch.Size) -> Float[Tensor, "R M Y X"]:
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=tuple(size), mode="bilinear", align_corners=False)

"""Train the reader of frames, which says the codes of things that lie anywhere, at any size.

Enters: a `ReaderTrainConfig`. Leaves: a run's folder with log and state, and a folder that `backbone.reader_start`
takes. Does not know sentences, fusions, masks.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dynin import checkpoint
from dynin.checkpoint import Checkpoint
from dynin.errors import TrainingError
from dynin.repository import require_replaceable
from dynin.tokenizers.protocol import ImageTokenizer
from dynin.training import optim, resume, state, whole
from dynin.training.journal import Figures
from dynin.virst.backbone.reader import PATCH_PX, FrameReader
from dynin.virst.build import READER
from dynin.virst.training.reader_config import ReaderTrainConfig
from dynin.virst.training.reader_source import Codes, PatchDrawer, Patches

PACKAGES = (*resume.PACKAGES, "virst")
UNIT = "frames"
RARE = 1e-4
"""How likely all codes together are, in the beginning, that nothing in the world has."""
THING_SHARE = 0.4
"""How likely a thing is at a patch, in the beginning."""
FRAMES_AT_ONCE = 128


def train(
    config: ReaderTrainConfig,
    tokenizer: ImageTokenizer,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[Figures], None] = lambda figures: None,
    resuming: resume.Policy = resume.EXACT,
) -> None:
    """Run or resume a training, in one process; what it learned is in the run's folder.

    Args:
        tokenizer: The picture tokenizer of `config.init`, whose codes are learned.

    Raises:
        TrainingError: If a loss is not finite.
        CheckpointError: If the state cannot be resumed or saved.
        ConfigError: If the tokenizer's patches have another size than the reader's, or Emoji World has no such videos.
    """
    drawer = PatchDrawer.open(config, tokenizer)
    network = start(config, tokenizer.codebook_size, drawer.codes).to(device)
    learning = whole.Learning(
        network=network,
        optimizers=optim.build(network, config.optimizer),
        draw=drawer.step,
        learn=lambda patches, step: _step(network, patches, config, step),
        count=lambda patches: len(patches.frames),
        unit=UNIT,
        marks=resume.marks(config, drawer.fingerprint(), PACKAGES),
        notes={"num_codes": tokenizer.codebook_size},
    )
    whole.run(learning, config, device=device, report=report, resuming=resuming)


def start(config: ReaderTrainConfig, num_codes: int, codes: Codes) -> FrameReader:
    """A new reader, drawn by the seed; how often codes occur, it knows from the beginning."""
    network = FrameReader(num_codes, config.width, torch.Generator().manual_seed(config.seed))
    shares = torch.full((num_codes,), RARE / num_codes)
    for told, share in ((codes.things, THING_SHARE), (codes.grounds, 1 - THING_SHARE)):
        for code in told.values():
            shares[code] += share / len(told)
    with torch.no_grad():
        network.output.bias.copy_(shares.log())
    return network


def export(config: ReaderTrainConfig, place: Path, provenance: Mapping[str, object]) -> FrameReader:
    """Write the averaged weights of a run, as they stand, in float32; returns what was written.

    Args:
        place: Must not exist, or be a folder that a model was saved in, which is replaced as a whole.
        provenance: What the folder tells beside steps, hours, hardware and settings.

    Raises:
        CheckpointError: If the run has saved no state yet, or the folder holds something else or cannot be written.
    """
    require_replaceable(place)
    kept = config.output / config.name / "state"
    notes = state.read_notes(kept)
    averages = state.read_tensors(kept, "average")
    network = FrameReader(int(notes["num_codes"]), config.width, torch.Generator())
    checkpoint.require_fit({name: tuple(value.shape) for name, value in network.state_dict().items()}, averages)
    network.load_state_dict(averages)
    facts = whole.provenance(config, UNIT, {**provenance, "init": config.init})
    sizes = {"width": config.width, "num_codes": int(notes["num_codes"])}
    checkpoint.save(place, Checkpoint(kind=READER, config=sizes, tensors=network.state_dict(), provenance=facts))
    return network


@torch.no_grad()
def measure(network: FrameReader, drawer: PatchDrawer, num_videos: int) -> dict[str, float]:
    """How much a reader says rightly in all frames of the first videos and stills of a drawer.

    `things` is the share of patches with a thing that are named right, `nearby` the share of them whose thing is named
    there or at a patch beside it (a middle may lie on the edge of two), `ground` the share of all other patches.
    """
    device = network.output.weight.device
    right: dict[str, list[int]] = {"things": [0, 0], "nearby": [0, 0], "ground": [0, 0]}
    for patches in drawer.films(num_videos):
        scores = [network(frames.to(device)) for frames in patches.frames.split(FRAMES_AT_ONCE)]
        said = torch.cat(scores).argmax(dim=-1).cpu()
        is_right = said == patches.codes
        beside = _beside(patches.frames.shape[-2] // PATCH_PX, patches.frames.shape[-1] // PATCH_PX)
        is_near = ((said[:, None] == patches.codes[..., None]) & beside).any(dim=-1)
        for name, found, where in (
            ("things", is_right, patches.is_thing),
            ("nearby", is_near, patches.is_thing),
            ("ground", is_right, ~patches.is_thing),
        ):
            right[name][0] += int(found[where].sum())
            right[name][1] += int(where.sum())
    return {name: share / max(1, count) for name, (share, count) in right.items()}


def _beside(rows: int, columns: int) -> Bool[Tensor, "N N"]:
    """Whether two patches are one, or touch."""
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return (places[:, None] - places).abs().amax(dim=-1) <= 1


def _step(network: FrameReader, patches: Patches, config: ReaderTrainConfig, step: int) -> dict[str, float]:
    """Gradients of one step, and its figures.

    Raises:
        TrainingError: If the loss is not finite.
    """
    device = network.output.weight.device
    codes, is_thing = patches.codes.to(device), patches.is_thing.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
        scores = network(patches.frames.to(device))
    loss = _loss(scores.float(), patches, config.ground_weight)
    if not bool(loss.isfinite()):
        raise TrainingError(f"step {step}: the loss is {float(loss.detach())}; lower setting 'optimizer.learning_rate'")
    loss.backward()  # type: ignore[no-untyped-call]
    is_right = scores.argmax(dim=-1) == codes
    return {
        "loss": float(loss.detach()),
        "things": float(is_right[is_thing].float().mean()),
        "ground": float(is_right[~is_thing].float().mean()),
    }


def _loss(scores: Float[Tensor, "B N K"], patches: Patches, ground_weight: float) -> Float[Tensor, ""]:
    """Cross-entropy, in the mean over patches by their weights."""
    codes, is_thing = patches.codes.to(scores.device), patches.is_thing.to(scores.device)
    weights = torch.where(is_thing, 1.0, ground_weight)
    losses = F.cross_entropy(scores.flatten(0, 1), codes.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()

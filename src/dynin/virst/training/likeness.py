"""Train a small CLIP on frames and sentences, so that anchors can be chosen by likeness where no published one fits.

Enters: a `LikenessTrainConfig`. Leaves: a run's folder with log and state, and a folder as `transformers` writes it:
`CLIPModel`, its tokenizer, how pictures are brought to it. Does not know anchors, or how well a model must do.

    frame ----CLIP's picture half--> unit vector --+
                                                   +--> likenesses / temperature --> which belong together
    sentence --CLIP's text half----> unit vector --+
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional as F

from dynin.checkpoint import replace_folder, to_json
from dynin.errors import TrainingError
from dynin.media.files import replace_whole
from dynin.optional import quietly
from dynin.repository import require_replaceable
from dynin.tokenizers.library import networks
from dynin.training import optim, resume, state, whole
from dynin.training.journal import Figures
from dynin.virst import similarity
from dynin.virst.similarity import MEAN, STD, TextLikeness, image_vectors, text_vectors
from dynin.virst.training.likeness_config import LikenessSizes, LikenessTrainConfig
from dynin.virst.training.likeness_source import PairDrawer, Pairs

START, END = "<|startoftext|>", "<|endoftext|>"
"""Marks of a sentence, as published CLIPs have them."""
TOKENIZER = "tokenizer.json"
PACKAGES = (*resume.PACKAGES, "virst")
UNIT = "frames"
LEAST_TEMPERATURE = 0.01
"""Source: Radford et al., arXiv:2103.00020, section 2.5: likenesses are multiplied by at most 100."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trained:
    """A CLIP with the tokenizer that it reads by."""

    network: Any
    """A `CLIPModel`."""
    tokenizer: Tokenizer

    def likeness(self) -> TextLikeness:
        """What compares frames with sentences."""
        return TextLikeness(self.network.eval(), self.tokenizer)


def train(
    config: LikenessTrainConfig,
    *,
    device: torch.device | str = "cpu",
    report: Callable[[Figures], None] = lambda figures: None,
    resuming: resume.Policy = resume.EXACT,
) -> None:
    """Run or resume a training, in one process; what it learned is in the run's folder.

    Raises:
        TrainingError: If a loss is not finite.
        CheckpointError: If `init` is no CLIP, or the state cannot be resumed or saved.
        DataError: If an example is faulty.
        RequestError: If the package transformers is missing.
    """
    model = start(config)
    network = model.network.to(device)
    drawer = PairDrawer.open(config, network.config.vision_config.image_size)

    def bound() -> None:
        with torch.no_grad():
            network.logit_scale.clamp_(max=-float(torch.tensor(LEAST_TEMPERATURE).log()))

    learning = whole.Learning(
        network=network,
        optimizers=optim.build(network, config.optimizer),
        draw=drawer.step,
        learn=lambda pairs, step: _step(model, pairs, step),
        count=lambda pairs: len(pairs.frames),
        unit=UNIT,
        marks=resume.marks(config, drawer.fingerprint(), PACKAGES),
        moved=bound,
    )
    whole.run(learning, config, device=device, report=report, resuming=resuming)


def start(config: LikenessTrainConfig) -> Trained:
    """What the run starts from; errors as in `train`.

    The tokenizer of a new CLIP is made from the sentences of its data, once for a run.
    """
    if config.init:
        found = similarity.load(Path(config.init))
        return Trained(network=found.network.requires_grad_(True), tokenizer=found.tokenizer)
    place = config.output / config.name / TOKENIZER
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        made = make_tokenizer(PairDrawer.open(config, config.sizes.image_px).corpus(), config.sizes)
        with replace_whole(place) as temporary:
            made.save(str(temporary))
    tokenizer = Tokenizer.from_file(str(place))
    network = new_network(config.sizes, tokenizer, temperature=config.temperature, seed=config.seed)
    return Trained(network=network, tokenizer=tokenizer)


def export(config: LikenessTrainConfig, place: Path, provenance: Mapping[str, object]) -> TextLikeness:
    """Write the averaged weights of a run, as they stand, in bfloat16; returns what was written, as it is read.

    Args:
        place: Must not exist, or be a folder that a model was saved in, which is replaced as a whole.
        provenance: What the folder tells beside steps, hours, hardware and settings.

    Raises:
        CheckpointError: If the run has saved no state yet, or the folder holds something else.
    """
    require_replaceable(place)
    kept = config.output / config.name / "state"
    averages = state.read_tensors(kept, "average")
    model = start(config)
    model.network.load_state_dict(averages, strict=False)
    facts = whole.provenance(config, UNIT, {**provenance, "init": config.init})
    write(place, model, facts)
    return similarity.load(place)


def write(place: Path, model: Trained, provenance: Mapping[str, object], dtype: torch.dtype = torch.bfloat16) -> None:
    """Write or replace a CLIP as `transformers` loads it, whole or not at all.

    Raises:
        CheckpointError: If the folder holds something else or cannot be written.
    """
    require_replaceable(place)
    package = networks.library()
    sizes = model.network.config
    side = {"height": sizes.vision_config.image_size, "width": sizes.vision_config.image_size}
    pictures = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side["height"]},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": STD,
    }

    def fill(folder: Path) -> None:
        folder.mkdir(parents=True)
        with quietly():
            words = package.PreTrainedTokenizerFast(
                tokenizer_object=model.tokenizer,
                bos_token=START,
                eos_token=END,
                unk_token=END,
                pad_token=END,
                model_max_length=sizes.text_config.max_position_embeddings,
            )
            words.save_pretrained(folder)
        model.network.to(dtype).save_pretrained(folder)
        model.tokenizer.save(str(folder / TOKENIZER))  # as it is, without what a library adds for its own use
        (folder / "preprocessor_config.json").write_bytes(to_json(pictures))
        (folder / "provenance.json").write_bytes(to_json(provenance))

    replace_folder(place, fill)


def new_network(sizes: LikenessSizes, tokenizer: Tokenizer, *, temperature: float, seed: int) -> Any:
    """A `CLIPModel` with weights drawn by a seed; RequestError where the package transformers is missing."""
    package = networks.library()
    half = {
        "hidden_size": sizes.width,
        "intermediate_size": sizes.ff_factor * sizes.width,
        "num_attention_heads": sizes.heads,
        "projection_dim": sizes.width,
    }
    start_id, end_id = (tokenizer.token_to_id(mark) for mark in (START, END))
    with quietly(), torch.random.fork_rng(devices=[]):  # what the library draws is drawn anew
        network = package.CLIPModel(
            package.CLIPConfig(
                text_config={
                    **half,
                    "num_hidden_layers": sizes.text_layers,
                    "vocab_size": tokenizer.get_vocab_size(),
                    "max_position_embeddings": sizes.max_len,
                    "bos_token_id": start_id,
                    "eos_token_id": end_id,
                    "pad_token_id": end_id,
                },
                vision_config={
                    **half,
                    "num_hidden_layers": sizes.image_layers,
                    "image_size": sizes.image_px,
                    "patch_size": sizes.patch_px,
                },
                projection_dim=sizes.width,
            )
        )
    initialise(network, torch.Generator().manual_seed(seed), temperature=temperature)
    return network.train()


@torch.no_grad()
def initialise(network: Any, generator: torch.Generator, *, temperature: float) -> None:
    """Draw a CLIP's weights.

    | tensor                          | values                           |
    | ------------------------------- | -------------------------------- |
    | matrices and kernels            | uniform, within 1 / sqrt(inputs) |
    | ids, places, the mark of a picture | normal of deviation 0.02      |
    | norms                           | 1                                |
    | biases                          | 0                                |
    | scale of likenesses             | 1 over the temperature           |
    """
    for name, value in network.named_parameters():
        if name == "logit_scale":
            value.fill_(-float(torch.tensor(temperature).log()))
        elif "position_embedding" in name or "token_embedding" in name or "class_embedding" in name:
            value.normal_(std=0.02, generator=generator)
        elif value.ndim > 1:
            bound = float(value[0].numel()) ** -0.5
            value.uniform_(-bound, bound, generator=generator)
        else:
            value.fill_(float("norm" in name and name.endswith("weight")))


def make_tokenizer(sentences: object, sizes: LikenessSizes) -> Tokenizer:
    """Byte-level pieces of lower-cased text, as CLIP has them, between a start mark and an end mark.

    Args:
        sentences: An iterator of `str`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=sizes.num_ids,
        special_tokens=[START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(f"{START} $A {END}", None, marks)
    tokenizer.enable_truncation(sizes.max_len)
    return tokenizer


def ids_of(tokenizer: Tokenizer, texts: list[str]) -> Int[Tensor, "B S"]:
    """Ids of sentences, end marks after the shorter ones."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    end, longest = tokenizer.token_to_id(END), max(map(len, rows))
    return torch.tensor([row + [end if end is not None else row[-1]] * (longest - len(row)) for row in rows])


def contrast(
    images: Float[Tensor, "B D"],
    texts: Float[Tensor, "B D"],
    is_other: Bool[Tensor, "B B"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """CLIP's loss: each frame is to find its sentence among those of the batch, and each sentence its frame.

    Args:
        is_other: Whether the sentence of a column is not true of the frame of a row. What is true of it though it
            is not its own sentence does not count, for or against.
        scale: What likenesses are multiplied by.
    Source:
        Radford et al., arXiv:2103.00020, figure 3.
    """
    logits = images @ texts.T * scale
    counts = is_other | torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    logits = logits.masked_fill(~counts, float("-inf"))
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def _step(model: Trained, pairs: Pairs, step: int) -> dict[str, float]:
    """Leave the gradients of a step's loss in the network; figures."""
    network = model.network
    device = network.logit_scale.device
    images = image_vectors(network, pairs.frames.to(device))
    unique = sorted({text for texts in pairs.texts for text in texts})
    vectors = text_vectors(network, ids_of(model.tokenizer, unique).to(device))
    place = {text: at for at, text in enumerate(unique)}
    losses = []
    for texts, is_other in zip(pairs.texts, pairs.is_other, strict=True):
        rows = vectors[torch.tensor([place[text] for text in texts], device=device)]
        losses.append(contrast(images, rows, is_other.to(device), network.logit_scale.exp()))
    loss = torch.stack(losses).mean()
    if not bool(torch.isfinite(loss)):
        raise TrainingError(
            f"the loss of step {step} is not finite; lower the learning rate; the state saved last is whole"
        )
    loss.backward()
    return {"loss": float(loss.detach()), "scale": float(network.logit_scale.detach().exp())}

"""What the benchmark of decoding compares: networks of each tier, prompts, the published samplers, and ways of ours.

Enters: a tier's and a case's name. Leaves: functions to be timed, all on the same weights and prompts. Does not know
how they are timed. A further case is its row in `CASES`; a way of ours is a policy, a dtype and what answers queries.

    tier S   128 wide, 4 layers,   6,208 ids     seconds: that everything works
    tier M   512 wide, 8 layers, 138,752 ids     an hour: the ratios
    tier L   the 8B shape                        decoding_gpu.py
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from duel import Profile
from torch import Tensor

from dynin.decoding.canvas import Canvas, Segment
from dynin.decoding.decoder import ParallelDecoder
from dynin.decoding.policy import DecodingPolicy, published_image, published_text
from dynin.decoding.refresh import Refresh
from dynin.model.arranged import arranged
from dynin.model.config import ModelConfig
from dynin.model.output import OutputRows
from dynin.model.transformer import Transformer, initialise
from dynin.nn.arranged import can_arrange
from dynin.pipeline.denoiser import PolicyDenoiser
from dynin.testing.oracle import Observer, PublishedNetwork
from dynin.testing.oracle_grid import GridSettings, Rows, decode_grid
from dynin.testing.oracle_speech import SpeechSettings, decode_speech
from dynin.testing.oracle_text import TextSettings, decode_text
from dynin.types import Modality
from dynin.vocabulary import PUBLISHED, Vocabulary, embedded

SEED = 20_261_126
ORACLE = "oracle"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is decoded, and in how many steps."""

    prompt_len: int
    num_new: int
    num_steps: int
    block_len: int | None = None
    temperature: float = 0.0
    guidance_scale: float = 0.0
    oracle_steps: int | None = None
    """Steps after which the oracle leaves off; then a step is compared with a step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Cases that share an oracle and its prompt."""

    modality: Modality
    sizes: Mapping[str, Sizes]
    """By tier."""
    profile: Profile | None = None
    """What the oracle takes on tier M."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """A way of ours."""

    policy: Callable[[Sizes], DecodingPolicy]
    dtype: torch.dtype = torch.float32
    all_ids: bool = False
    """Every id may be chosen, as published text allows; otherwise those of the modality and its ends."""
    denoiser: Callable[[Transformer], PolicyDenoiser] = PolicyDenoiser


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A way of ours beside the oracle of a family."""

    family: str
    way: Way
    resolve_at: float
    """Ratio that is wanted at least."""
    aim: float
    is_exact: bool = False
    """Whether tokens have to be the oracle's where nothing is drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run made."""

    ids: Tensor
    num_steps: int
    num_columns: int = 0
    """Columns that the network computed, where it counts them."""


FAMILIES: Mapping[str, Family] = {
    "text": Family(
        modality=Modality.TEXT,
        sizes={
            "S": Sizes(prompt_len=16, num_new=32, num_steps=8, block_len=16),
            "M": Sizes(prompt_len=32, num_new=128, num_steps=64, block_len=32),
        },
        profile=Profile(total_s=46.3, blocks_s=7.8, head_s=21.0),
    ),
    "text-t1": Family(
        modality=Modality.TEXT,
        sizes={
            "S": Sizes(prompt_len=16, num_new=32, num_steps=8, block_len=16, temperature=1.0, oracle_steps=2),
            "M": Sizes(prompt_len=32, num_new=128, num_steps=64, block_len=32, temperature=1.0, oracle_steps=8),
        },
    ),
    "image": Family(
        modality=Modality.IMAGE,
        sizes={
            "S": Sizes(prompt_len=16, num_new=64, num_steps=4, guidance_scale=3.5, temperature=1.0),
            "M": Sizes(prompt_len=64, num_new=256, num_steps=20, guidance_scale=3.5, temperature=1.0),
        },
        profile=Profile(total_s=40.8, blocks_s=9.4, head_s=23.5),
    ),
    "speech": Family(
        modality=Modality.SPEECH,
        sizes={
            "S": Sizes(prompt_len=16, num_new=64, num_steps=8, block_len=32, temperature=1.0),
            "M": Sizes(prompt_len=64, num_new=256, num_steps=64, block_len=128, temperature=1.0),
        },
        profile=Profile(total_s=60.3, blocks_s=16.7, head_s=38.5),
    ),
}


def exact_text(sizes: Sizes) -> DecodingPolicy:
    """The published sampler of text through our decoder."""
    return published_text(
        num_new=sizes.num_new,
        num_steps=sizes.num_steps,
        block_len=sizes.block_len or sizes.num_new,
        temperature=sizes.temperature,
    )


def exact_image(sizes: Sizes) -> DecodingPolicy:
    """The published sampler of pictures through our decoder."""
    return published_image(num_steps=sizes.num_steps, guidance_scale=sizes.guidance_scale)


def exact_speech(sizes: Sizes) -> DecodingPolicy:
    """The published sampler of speech through our decoder."""
    return DecodingPolicy(num_steps=sizes.num_steps, block_len=sizes.block_len, temperature=sizes.temperature)


def cached(sizes: Sizes) -> DecodingPolicy:
    """Keys and values remembered, made anew at the first pass of each block; as many steps as the oracle."""
    return replace(exact_speech(sizes), refresh=Refresh(per_block=True), sampling="inverse")


CASES: dict[str, Case] = {
    "text-exact": Case(family="text", way=Way(policy=exact_text, all_ids=True), resolve_at=4, aim=5.5, is_exact=True),
    "text-t1-exact": Case(family="text-t1", way=Way(policy=exact_text, all_ids=True), resolve_at=8, aim=11),
    "image-exact": Case(family="image", way=Way(policy=exact_image), resolve_at=3.3, aim=4.2),
    "speech-exact": Case(family="speech", way=Way(policy=exact_speech), resolve_at=2.8, aim=3.5),
    "text-cached": Case(family="text", way=Way(policy=cached, dtype=torch.bfloat16), resolve_at=12, aim=20),
    "text-t1-cached": Case(family="text-t1", way=Way(policy=cached, dtype=torch.bfloat16), resolve_at=25, aim=45),
}
"""By name. `decoding_forced` adds the fast ways, whose schedules are those measured on the embedded model."""

SHAPES: Mapping[str, ModelConfig] = {
    "S": ModelConfig(d_model=128, num_heads=2, num_kv_heads=2, num_layers=4, mlp_dim=256, num_rows=6208, max_len=1024),
    "M": ModelConfig(
        d_model=512, num_heads=8, num_kv_heads=8, num_layers=8, mlp_dim=1536, num_rows=PUBLISHED.size, max_len=4096
    ),
}


class Stage:
    """The networks of a tier, with drawn weights, and what is decoded on them."""

    def __init__(self, tier: str) -> None:
        """Draw the weights."""
        self.tier = tier
        self.vocabulary: Vocabulary = (
            PUBLISHED if tier == "M" else embedded(text_size=4096, image_codes=1024, speech_codes=1024)
        )
        model = Transformer(replace(SHAPES[tier], num_rows=self.vocabulary.size))
        initialise(model, torch.Generator().manual_seed(SEED))
        self._models = {torch.float32: model.eval().requires_grad_(False)}
        self._quick: dict[torch.dtype, Transformer] = {}

    def model(self, dtype: torch.dtype = torch.float32) -> Transformer:
        """The weights in a dtype."""
        if dtype not in self._models:
            full = self._models[torch.float32]
            with torch.device("meta"):
                copy = Transformer(full.config)
            values = {name: value.to(dtype) for name, value in full.state_dict().items()}
            copy.load_state_dict(values, assign=True)
            self._models[dtype] = copy.eval().requires_grad_(False)
        return self._models[dtype]

    def quick(self, dtype: torch.dtype = torch.float32) -> Transformer:
        """The same weights laid out in tiles once, where this machine takes that; ours runs on these."""
        if dtype not in self._quick:
            model = self.model(dtype)
            self._quick[dtype] = arranged(model) if can_arrange(model.output.weight) else model
        return self._quick[dtype]

    @property
    def tile_bytes(self) -> int:
        """What the output tables of `quick` keep beside themselves."""
        return sum(OutputRows.of(model.output).tile_bytes for model in self._quick.values())

    def sizes(self, family: str) -> Sizes:
        """How much a family decodes on this tier."""
        return FAMILIES[family].sizes[self.tier]

    def canvas(self, family: str, sizes: Sizes | None = None, seed: int = 1) -> tuple[Canvas, Tensor]:
        """The rows of a prompt, that of a family where no sizes are given, and which of their places are to be filled.

        text     words | MASK ..                          nothing is padding
        speech   t2s words eos soa | MASK ..
        image    t2i words eos soi | MASK .. | eoi        without condition: pad .. t2i bos eos soi | MASK .. | eoi
        """
        names, sizes = self.vocabulary, sizes or self.sizes(family)
        generator = torch.Generator().manual_seed(SEED + seed)
        words = torch.randint(names.text.start, names.text.stop, (1, sizes.prompt_len), generator=generator)
        modality = FAMILIES[family].modality
        new = torch.full((1, sizes.num_new), names["mask"])
        if modality == Modality.TEXT:
            ids = torch.cat([words, new], dim=1)
            return Canvas(ids=ids), ids == names["mask"]
        task, begin = ("t2i", "soi") if modality == Modality.IMAGE else ("t2s", "soa")
        words[0, [0, 1, -2, -1]] = torch.tensor([names[name] for name in (task, "bos", "eos", begin)])
        if modality == Modality.SPEECH:
            ids = torch.cat([words, new], dim=1)
            return Canvas(ids=ids), ids == names["mask"]
        end = torch.tensor([[names["eoi"]]])
        empty = torch.full_like(words, names.pad_id)
        empty[0, -4:] = torch.tensor([names[name] for name in (task, "bos", "eos", begin)])
        ids, uncond_ids = (torch.cat([prompt, new, end], dim=1) for prompt in (words, empty))
        canvas = Canvas(
            ids=ids,
            attend=torch.ones_like(ids, dtype=torch.bool),
            uncond_ids=uncond_ids,
            uncond_attend=uncond_ids != names.pad_id,
        )
        return canvas, ids == names["mask"]

    def allowed(self, family: str) -> Tensor:
        """The ids that a target of the family may take."""
        ends = {Modality.TEXT: ("eos",), Modality.IMAGE: (), Modality.SPEECH: ("eoa", "eos")}
        modality = FAMILIES[family].modality
        return self.vocabulary.allowed_ids(modality, *ends[modality])

    def segment(self, family: str, way: Way, sizes: Sizes, is_target: Tensor, allowed: Tensor | None) -> Segment:
        """What is decoded of a canvas, and how."""
        return Segment(
            name=family,
            is_target=is_target,
            allowed_ids=allowed,
            policy=way.policy(sizes),
            grid=(math.isqrt(sizes.num_new),) * 2 if family == "image" else None,
        )

    def task(self, family: str, way: Way) -> tuple[Canvas, Segment]:
        """A family's canvas, and how a way decodes it."""
        canvas, is_target = self.canvas(family)
        allowed = None if way.all_ids else self.allowed(family)
        return canvas, self.segment(family, way, self.sizes(family), is_target, allowed)


def oracle(stage: Stage, family: str, observer: Observer | None = None) -> Callable[[], Outcome]:
    """The published sampler of a family, to be run as often as wanted."""
    sizes, names, network = stage.sizes(family), stage.vocabulary, PublishedNetwork.of(stage.model())
    canvas, is_target = stage.canvas(family)
    ends = (names["eoa"], names["eos"])

    def text() -> Outcome:
        told = TextSettings(
            mask_id=names["mask"],
            num_new=sizes.num_new,
            num_steps=sizes.num_steps,
            block_len=sizes.block_len or sizes.num_new,
            temperature=sizes.temperature,
            stop_after=sizes.oracle_steps,
        )
        generator = torch.Generator().manual_seed(SEED)
        prompt = canvas.ids[:, : sizes.prompt_len]
        ids = decode_text(network, prompt, told, generator=generator, observer=observer)
        return Outcome(ids=ids, num_steps=sizes.oracle_steps or sizes.num_steps)

    def image() -> Outcome:
        told = GridSettings(
            mask_id=names["mask"],
            num_places=sizes.num_new,
            first_id=names.image.start,
            num_classes=len(names.image),
            num_steps=sizes.num_steps,
            guidance_scale=sizes.guidance_scale,
            prefix_len=sizes.prompt_len,
        )
        assert canvas.attend is not None
        rows = Rows(
            ids=canvas.ids,
            attend=canvas.attend,
            uncond_ids=canvas.uncond_ids,
            uncond_attend=canvas.uncond_attend,
        )
        classes = decode_grid(network, rows, told, generator=torch.Generator().manual_seed(SEED), observer=observer)
        ids = canvas.ids.masked_scatter(is_target, told.to_ids(classes))
        return Outcome(ids=ids, num_steps=sizes.num_steps)

    def speech() -> Outcome:
        told = SpeechSettings(
            mask_id=names["mask"],
            first_id=names.speech.start,
            num_codes=len(names.speech),
            end_ids=ends,
            max_new=sizes.num_new,
            num_steps=sizes.num_steps,
            block_len=sizes.block_len or sizes.num_new,
            temperature=sizes.temperature,
        )
        attend = torch.ones_like(canvas.ids, dtype=torch.bool)
        generator = torch.Generator().manual_seed(SEED)
        ids = decode_speech(network, canvas.ids, attend, told, generator=generator, observer=observer)
        return Outcome(ids=ids, num_steps=sizes.num_steps)

    return {Modality.TEXT: text, Modality.IMAGE: image, Modality.SPEECH: speech}[FAMILIES[family].modality]


def ours(stage: Stage, family: str, way: Way) -> Callable[[], Outcome]:
    """A way of ours, to be run as often as wanted."""
    (canvas, segment), model = stage.task(family, way), stage.quick(way.dtype)

    def run() -> Outcome:
        denoiser = way.denoiser(model)
        generator = torch.Generator().manual_seed(SEED)
        decoded = ParallelDecoder(denoiser, stage.vocabulary["mask"]).run(canvas, [segment], generator=generator)
        num_columns = denoiser.effort(0).num_columns
        return Outcome(ids=decoded.ids, num_steps=decoded.num_forwards, num_columns=num_columns)

    return run

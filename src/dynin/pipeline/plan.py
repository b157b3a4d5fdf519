"""What a request or a training will take: bytes by part, before a weight is read.

Enters: an `Outline` and what is to be done with the model (`Work`). Leaves: a `Plan`. Does not know how layers allocate
(model/memory.py), what a machine has, or how anything is printed.

    always      weights, tokenizers; a training's gradients and states
    in turn     reading files, a pass, the logits, choosing, drawing a picture: the largest of them counts
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from dynin.config import suggest
from dynin.decoding.policy import DecodingPolicy
from dynin.errors import RequestError
from dynin.model import memory
from dynin.model.memory import FLOAT, Pass, Training
from dynin.pipeline.outline import Outline
from dynin.pipeline.picture_size import lengths_at, require_size
from dynin.pipeline.policies import POLICIES, limit, policy_of
from dynin.sequence.layout import Assembler, Sequence
from dynin.sequence.task import TABLES, Task
from dynin.tokenizers.emova.config import VocoderSizes
from dynin.types import Modality

SIZES: Mapping[str, int] = MappingProxyType({"float32": 4, "bfloat16": 2, "float16": 2})
DEVICES = ("cpu", "cuda", "mps")
PICTURE_NUMBERS_PER_PX = 645
"""Numbers in float32 that MAGVIT-v2 holds at a time for each pixel of a picture; counted at 128 and 256 px."""
SPEAKING_BYTES_PER_FRAME = 203_000
"""That the published vocoder holds at a time for each frame of its window; counted at 256 to 1,024 frames."""
HEARING_BYTES_PER_S = 1_100_000
"""That the published speech encoder holds for each second of a piece of sound; counted at 30 s, twice that at 10 s."""
TEXT_BYTES_PER_PIECE = 1_030
"""That the text tokenizer's library holds for each piece and its merge; counted at 126,080 pieces."""
HEARING_NUMBERS, SPEAKING_NUMBERS = 90_620_292, 31_667_824
"""In the two halves of the published speech tokenizer."""
CELL_PX = 16
"""Side of what one code of a picture stands for, in every tokenizer there is."""
FRAMES_AT_ONCE = 4
"""Of a video that go through the picture tokenizer together."""
CODES_PER_S = 25
_TEXT = "\0"
"""Stands for the text of a request while its row is laid out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is to be done."""

    task: str
    dtype: str = ""
    """float32, bfloat16 or float16; empty as the model is stored, or in a training float32."""
    weights: str = ""
    """int8, int4, or empty."""
    device: str = "cpu"
    """cpu, cuda or mps: whose memory is counted."""
    batch: int = 1
    """Requests, or rows of a training, at a time."""
    train: str = ""
    """full, lora, or empty for a request."""
    rank: int = 16
    """Of the adapters of lora."""
    is_recomputed: bool = False
    is_adamw: bool = False
    """Whether a full training leaves the matrices to AdamW, as `matrix_rate = 0` does."""
    state_bits: int = 32
    """32, or 8 for what AdamW remembers."""
    num_processes: int = 1
    """That share a training out between them; one of them is planned."""
    is_resharded: bool = False
    """Whether whole weights are put together for each use, as `reshard = true` does."""
    prompt_len: int = 64
    """Ids of the words that are given."""
    size_px: int = 0
    """Side at which pictures are read and made; 0 as the task has it."""
    sound_s: float = 10.0
    """Seconds of a sound that is given."""

    def __post_init__(self) -> None:
        """RequestError for what cannot be planned."""
        for name, value, known in (
            ("dtype", self.dtype, tuple(SIZES)),
            ("weights", self.weights, ("int8", "int4")),
            ("device", self.device, DEVICES),
            ("train", self.train, ("full", "lora")),
        ):
            if value and value not in known:
                raise RequestError(f"unknown {name} {value!r}{suggest(value, known)}")
        for name, number in (
            ("batch", self.batch),
            ("rank", self.rank),
            ("processes", self.num_processes),
            ("prompt", self.prompt_len),
        ):
            if number < 1:
                raise RequestError(f"{name} is {number}; give at least 1")
        self._check_training()

    def _check_training(self) -> None:
        """RequestError for settings of a training that contradict each other, or stand without one."""
        if self.state_bits not in (8, 32):
            raise RequestError(f"state-bits is {self.state_bits}; give 32 or 8")
        if self.is_recomputed and not self.train:
            raise RequestError("only a training runs blocks once more; give --train full or --train lora")
        if not self.train and (self.state_bits != 32 or self.num_processes > 1 or self.is_adamw):
            raise RequestError("only a training has optimizers and processes; give --train full or --train lora")
        if self.is_adamw and self.train == "lora":
            raise RequestError("adapters follow AdamW in any case; leave --adamw out")
        if self.is_resharded and self.num_processes == 1:
            raise RequestError("only several processes put weights together; give --processes, or leave --reshard out")
        if self.state_bits == 8 and self.num_processes > 1:
            raise RequestError(
                "states in 8 bits are for one process, several share them out already; leave --state-bits or "
                "--processes out"
            )
        if self.train and self.weights:
            raise RequestError("weights in fewer bits are not trained; leave --weights or --train out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One line of a plan."""

    name: str
    num_bytes: int
    about: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Bytes by part."""

    title: str
    always: tuple[Part, ...]
    in_turn: tuple[Part, ...]

    @property
    def num_bytes(self) -> int:
        """At the fullest moment."""
        return sum(part.num_bytes for part in self.always) + max(part.num_bytes for part in self.in_turn)


def plan(model: Outline, work: Work) -> Plan:
    """The plan of a request, or of a training step.

    Raises:
        RequestError: If the model has no such task, or the row is longer than the model reaches.
    """
    tasks = TABLES[model.vocabulary.name]
    if work.task not in tasks:
        raise RequestError(f"{model.name} has no task {work.task!r}{suggest(work.task, tasks)}")
    task = _sized(tasks[work.task], work.size_px)
    passes = _passes(model, task, work)
    length = passes[0].length
    if work.train:
        return _training(model, work, task, passes)
    size = SIZES.get(work.dtype, FLOAT if model.is_embedded else model.stored_size)
    if work.weights == "int4" and size != SIZES["bfloat16"]:
        raise RequestError("weights in int4 multiply in bfloat16; give --dtype bfloat16, or take int8")
    network = model.network
    weights = memory.weight_bytes(network, size, work.weights)
    branches = passes[0].num_branches
    widest = max(passes, key=lambda work: work.num_places * work.num_choices)
    table = f"{widest.num_places:,} places x {widest.num_choices:,} ids"
    choosing = max(memory.choice_bytes(each, size, is_cpu=work.device == "cpu") for each in passes)
    always = (
        Part(name="embedding and output table", num_bytes=weights["tables"], about=f"{network.num_rows:,} rows"),
        Part(
            name="blocks",
            num_bytes=weights["matrices"] + weights["norms"],
            about=f"{network.num_layers} layers" + (f", matrices in {work.weights}" if work.weights else ""),
        ),
        *_tokenizers(model, task, work),
        Part(name="cache of keys and values", num_bytes=0, about="none is kept"),
    )
    in_turn = (
        Part(name="a pass", num_bytes=max(memory.block_bytes(network, each, size, work.weights) for each in passes),
             about=f"{branches} rows x {length:,} positions"),
        Part(name="logits", num_bytes=max(memory.head_bytes(network, each, size) for each in passes), about=table),
        Part(name="choosing", num_bytes=choosing, about=table),
        *_pictures(model, task),
        *_sounds(model, task, work),
        Part(name="files while they are read", num_bytes=_open_files(model, work, size)),
    )  # fmt: skip
    return Plan(title=_title(model, work, task), always=always, in_turn=in_turn)


def _sized(task: Task, size_px: int) -> Task:
    """The task with pictures of a side; RequestError where it has none, or the side is no whole number of codes."""
    if not size_px:
        return task
    require_size(task, size_px, CELL_PX)
    return replace(task, given_px=size_px, lengths={**task.lengths, **lengths_at(task, size_px, CELL_PX)})


def _training(model: Outline, work: Work, task: Task, passes: list[Pass]) -> Plan:
    how = Training(
        size=SIZES.get(work.dtype, FLOAT),
        rank=work.rank if work.train == "lora" else 0,
        is_recomputed=work.is_recomputed,
        is_adamw=work.is_adamw,
        state_bits=work.state_bits,
        num_processes=work.num_processes,
        is_frugal=work.is_resharded,
    )
    step = max((memory.step_bytes(model.network, each, how) for each in passes), key=lambda parts: sum(parts.values()))
    *kept, (name, last) = step.items()
    held = memory.held_bytes(model.network, how)
    numbers = sum(memory.num_parameters(model.network).values())
    about = {"weights": f"{numbers:,} numbers in float32" + (f" over {work.num_processes}" * (work.num_processes > 1))}
    return Plan(
        title=_title(model, work, task),
        always=(
            *(Part(name=key, num_bytes=value, about=about.get(key, "")) for key, value in held.items()),
            *(Part(name=key, num_bytes=value) for key, value in memory.whole_bytes(model.network, how).items()),
            *(Part(name=key, num_bytes=value) for key, value in kept if value),
        ),
        in_turn=(Part(name=name, num_bytes=last, about=f"{work.batch} rows x {passes[0].length:,} positions"),),
    )


def _title(model: Outline, work: Work, task: Task) -> str:
    what = f"training ({work.train})" if work.train else "a request"
    what += f", one of {work.num_processes} processes" if work.num_processes > 1 else ""
    return f"{model.name}: {what}, {task.name}, {work.dtype or 'as stored'}" + (f"; {model.note}" if model.note else "")


# --- the rows --------------------------------------------------------------------------------------------------------


def _passes(model: Outline, task: Task, work: Work) -> list[Pass]:
    """What passes through the network for each target of a task, its canvas as long as it may grow."""
    sequence = _sequence(model, task, work)
    policies = {
        span.modality: policy_of(POLICIES[model.vocabulary.name], task.name, span.modality)
        for span in sequence.spans
        if span.is_target
    }
    room = model.network.max_len - len(sequence.ids)
    if room < 0:
        raise RequestError(
            f"{task.name} takes {len(sequence.ids):,} positions, the model's length is {model.network.max_len:,}; "
            "plan fewer words with --prompt"
        )
    counts = {span.modality: span.stop - span.start for span in sequence.spans if span.is_target}
    fitted = {modality: limit(policy, counts[modality] + room) for modality, policy in policies.items()}
    grown = {modality: max(counts[modality], fitted[modality].max_len or 0) for modality in counts}
    length = len(sequence.ids) + sum(grown[modality] - counts[modality] for modality in counts)
    is_guided = any(policy.guidance_scale > 0 for policy in fitted.values()) and not work.train
    common = Pass(
        num_rows=work.batch,
        length=length,
        num_places=1,
        num_choices=1,
        is_guided=is_guided,
        is_padded=work.batch > 1 or not bool(sequence.attend.all()),
    )
    return [_pass(model, task, common, policy, modality, grown[modality], work) for modality, policy in fitted.items()]


def _pass(
    model: Outline, task: Task, common: Pass, policy: DecodingPolicy, modality: Modality, count: int, work: Work
) -> Pass:
    together = count if work.train or policy.block_len is None else min(count, policy.block_len)
    return replace(
        common,
        num_places=together,
        num_choices=len(model.vocabulary.allowed_ids(modality, *task.ends.get(modality, ()))),
        is_drawn=policy.temperature > 0,
        is_by_entropy=policy.score == "entropy",
    )


def _sequence(model: Outline, task: Task, work: Work) -> Sequence:
    """The row of the task's table, with as many ids of everything given as are planned for."""

    def encode(text: str) -> list[int]:
        return [0] * (work.prompt_len if _TEXT in text else 1)

    side = task.given_px or model.image_px
    cells = (side // CELL_PX) ** 2
    counts = {
        Modality.IMAGE: cells,
        Modality.VIDEO: cells * model.num_frames,
        Modality.SPEECH: round(work.sound_s * CODES_PER_S),
    }
    given = {
        modality: _TEXT if modality == Modality.TEXT else torch.zeros(counts[modality], dtype=torch.int64)
        for modality in task.conditions
    }
    return Assembler(vocabulary=model.vocabulary, encode_text=encode).assemble(task, given)


# --- besides the network ---------------------------------------------------------------------------------------------


def _uses(task: Task, *modalities: Modality) -> bool:
    return any(modality in modalities for modality in (*task.conditions, *task.targets))


def _tokenizers(model: Outline, task: Task, work: Work) -> list[Part]:
    """Those that a request needs; the small ones are read with the model.

    On the processor the text tokenizer counts too, and of the one for speech the half that is used: files are read as
    they lie, so that what is not touched takes no memory.
    """
    parts = []
    if work.device == "cpu":
        text = TEXT_BYTES_PER_PIECE * len(model.vocabulary.text)
        parts.append(Part(name="text tokenizer", num_bytes=text))
    if model.image_bytes and (model.is_embedded or _uses(task, Modality.IMAGE, Modality.VIDEO)):
        parts.append(Part(name="picture tokenizer", num_bytes=model.image_bytes, about="float32"))
    if model.speech_bytes and model.is_embedded:
        parts.append(Part(name="speech tokenizer", num_bytes=model.speech_bytes, about="float32"))
    elif model.speech_bytes and _uses(task, Modality.SPEECH):
        hears = Modality.SPEECH in task.conditions or work.device != "cpu"
        speaks = Modality.SPEECH in task.targets or work.device != "cpu"
        halves = " and ".join([*(["hearing"] if hears else []), *(["speaking"] if speaks else [])])
        numbers = HEARING_NUMBERS * hears + SPEAKING_NUMBERS * speaks
        parts.append(Part(name="speech tokenizer", num_bytes=FLOAT * numbers, about=f"float32, {halves}"))
    return parts


def _pictures(model: Outline, task: Task) -> list[Part]:
    """A picture through MAGVIT-v2; the small tokenizer takes next to nothing."""
    if model.is_embedded or not _uses(task, Modality.IMAGE, Modality.VIDEO):
        return []
    makes = any(modality in (Modality.IMAGE, Modality.VIDEO) for modality in task.targets)
    count = task.lengths.get(Modality.IMAGE, 0)
    side = CELL_PX * round(count**0.5) if makes else task.given_px or model.image_px
    together = min(FRAMES_AT_ONCE, model.num_frames) if _uses(task, Modality.VIDEO) else 1
    num_bytes = together * PICTURE_NUMBERS_PER_PX * FLOAT * side * side
    return [Part(name="drawing or seeing", num_bytes=num_bytes, about=f"{together} of {side} x {side} px at a time")]


def _sounds(model: Outline, task: Task, work: Work) -> list[Part]:
    """A sound through EMOVA, which speaks a window at a time; the small tokenizer takes next to nothing."""
    if model.is_embedded or not _uses(task, Modality.SPEECH):
        return []
    if Modality.SPEECH in task.targets:
        frames = VocoderSizes().window_frames
        return [
            Part(name="speaking", num_bytes=SPEAKING_BYTES_PER_FRAME * frames, about=f"{frames:,} frames at a time")
        ]
    num_bytes = round(HEARING_BYTES_PER_S * max(work.sound_s, 20.0))
    return [Part(name="hearing", num_bytes=num_bytes, about=f"{work.sound_s:g} s")]


def _open_files(model: Outline, work: Work, size: int) -> int:
    """Files that lie in memory beside what is made of them; the network's are its weights where nothing is changed."""
    if work.device != "cpu":
        return 0
    is_changed = size != model.stored_size or bool(work.weights)
    return model.media_file_bytes + (model.file_bytes if is_changed else 0)

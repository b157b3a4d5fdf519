"""Which figures a model is judged by: one row a task, each a metric and the judge that decides it.

Enters: examples of Emoji World and what a model made of them. Leaves: `Score` values. Does not know how results are
made; judges of pictures and speech are in `metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from dynin.data.emoji_world import caption, clip_caption, edit, problem, question, sentence
from dynin.data.emoji_world.artwork import NAMES, NUM_OBJECTS
from dynin.data.emoji_world.scene import CELL_PX, GRID_CELLS, Scene
from dynin.data.emoji_world.voice import VOICE_TARGET, VOICES, find_program, speak
from dynin.data.emoji_world.world import EmojiWorld
from dynin.data.example import Example
from dynin.data.variants import LARGE_CELLS
from dynin.evaluation.metrics.picture import (
    psnr_outside,
    read_picture,
    reading_matches,
    reading_shows,
)
from dynin.evaluation.metrics.speech import recognise, require_recogniser, shuffled_error_rate, word_error_rate
from dynin.evaluation.metrics.video import read_video, video_reading_matches
from dynin.evaluation.report import Score, share
from dynin.media.audio import Audio
from dynin.media.image import from_pil
from dynin.pipeline.result import Result
from dynin.sequence.task import EMBEDDED_TASKS
from dynin.types import Modality

Retell = Callable[[torch.Tensor], torch.Tensor]
"""A picture to codes and back, without a network in between."""
Pairs = Sequence[tuple[Example, Result]]
Judge = Callable[[Pairs], Score]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One figure of the report."""

    task: str
    judge: Judge
    ceiling: Callable[[Pairs, Retell], Mapping[str, float]] = lambda pairs, retell: {}
    """What the picture tokenizer alone makes of the same examples, to stand beside the score."""
    voice: str = ""
    """Who says what is heard; empty for the target voice."""
    is_wanted: Callable[[Example], bool] = lambda example: True
    """Which examples of the task count."""
    num_cells: int = GRID_CELLS
    """Cells along a side of its pictures."""
    is_long: bool = False
    """Whether what is said word for word is long."""

    @property
    def size_px(self) -> int | None:
        """The side at which pictures are asked for; None for the model's own."""
        return None if self.num_cells == GRID_CELLS else self.num_cells * CELL_PX

    def world(self, seed: int) -> EmojiWorld:
        """Where its examples come from, sounds spoken anew."""
        return EmojiWorld(
            seed,
            "held_out",
            num_cells=self.num_cells,
            is_long=self.is_long,
            speak=partial(speak, voice=self.voice or VOICE_TARGET),
        )

    def require_tools(self) -> None:
        """An error that says how to install it, if a program or package that the row needs is missing."""
        task = EMBEDDED_TASKS[self.task]
        if Modality.SPEECH in (*task.conditions, *task.targets):
            find_program(VOICES[self.voice or VOICE_TARGET])
        if Modality.SPEECH in task.targets:
            require_recogniser()


def _truth(example: Example, name: str) -> Any:
    return example.truth[name]  # type: ignore[index]


def _pixels(result: Result) -> torch.Tensor:
    assert result.image is not None
    return from_pil(result.image)


def _picture(pairs: Pairs) -> Score:
    readings = [read_picture(_pixels(result)) for _, result in pairs]
    slots = [caption.slots(_truth(example, "scene")) for example, _ in pairs]
    right = [reading_matches(*pair) for pair in zip(readings, slots, strict=True)]
    other = [reading_matches(*pair) for pair in zip(readings, [*slots[1:], slots[0]], strict=True)]
    beside = {"other_scene": sum(other) / max(1, len(other))}
    return share("all objects, relations and the background right", right, beside)


def _frame(pairs: Pairs) -> Score:
    right = []
    for example, result in pairs:
        scene = _truth(example, "scene")
        reading = read_picture(_pixels(result), may_leave=True)
        things = [(thing.name, thing.size, thing.column, thing.row) for thing in scene.things]
        right.append(reading_shows(reading, things, scene.background))
    return share("the asked frame, every thing in its place", right)


def _edited(pairs: Pairs) -> Score:
    right, outside = [], []
    for example, result in pairs:
        done = _truth(example, "edit")
        pixels = _pixels(result)
        right.append(shows(pixels, done.target))
        outside += fidelity_outside(example, pixels)
    beside = {"psnr_outside_db": sum(outside) / max(1, len(outside))}
    return share("edit done, every thing in its place", right, beside)


def _edited_ceiling(pairs: Pairs, retell: Retell) -> Mapping[str, float]:
    outside: list[float] = []
    for example, _ in pairs:
        source = example.condition[Modality.IMAGE]
        assert isinstance(source, torch.Tensor)
        outside += fidelity_outside(example, retell(source))
    return {"round_trip_psnr_db": sum(outside) / max(1, len(outside))}


def fidelity_outside(example: Example, pixels: torch.Tensor) -> list[float]:
    """PSNR in dB to the source of an "i2i" example where the edit leaves it alone; empty where it leaves nothing."""
    region = torch.from_numpy(edit.changed_region(_truth(example, "edit")))
    source = example.condition[Modality.IMAGE]
    return [] if bool(region.all()) else [psnr_outside(pixels, source, region)]  # type: ignore[arg-type]


def shows(pixels: torch.Tensor, scene: Scene) -> bool:
    """Whether a picture shows a scene with every thing in its place."""
    things = [(thing.name, thing.size, thing.column, thing.row) for thing in scene.things]
    return reading_shows(read_picture(pixels), things, scene.background)


def _video(pairs: Pairs) -> Score:
    readings = []
    for _, result in pairs:
        assert result.video is not None
        readings.append(read_video(result.video.frames))
    slots = [clip_caption.slots(_truth(example, "clip")) for example, _ in pairs]
    right = [video_reading_matches(*pair) for pair in zip(readings, slots, strict=True)]
    other = [video_reading_matches(*pair) for pair in zip(readings, [*slots[1:], slots[0]], strict=True)]
    beside = {"other_clip": sum(other) / max(1, len(other))}
    return share("object, motion, second object and background right", right, beside)


def _scene_text(pairs: Pairs) -> Score:
    right = [caption.describes(caption.parse(result.text or ""), _truth(example, "scene")) for example, result in pairs]
    return share("scene described exactly", right)


def _clip_text(pairs: Pairs) -> Score:
    claims = [(clip_caption.parse(result.text or ""), _truth(example, "clip")) for example, result in pairs]
    moved = [
        claim is not None and (claim.mover, claim.motion) == (clip.mover.name, clip.motion) for claim, clip in claims
    ]
    exact = [clip_caption.describes(claim, clip) for claim, clip in claims]
    return share("object and motion right", moved, {"all_slots": sum(exact) / len(exact)})


def _answer(pairs: Pairs) -> Score:
    return share(
        "question answered", [question.is_right(result.text or "", _truth(e, "question")) for e, result in pairs]
    )


def _both(pairs: Pairs) -> Score:
    pictures = [shows(_pixels(result), _truth(example, "edit").target) for example, result in pairs]
    texts = [caption.describes(caption.parse(result.text or ""), _truth(example, "scene")) for example, result in pairs]
    right = [picture and text for picture, text in zip(pictures, texts, strict=True)]
    return share(
        "picture edited and described", right, {"picture": sum(pictures) / len(right), "text": sum(texts) / len(right)}
    )


def _number(pairs: Pairs) -> Score:
    right = [problem.final_answer(result.text or "") == _truth(example, "problem").answer for example, result in pairs]
    forms = {_truth(example, "problem").form for example, _ in pairs}
    beside = {}
    for form in sorted(forms):
        of_form = [hit for hit, (e, _) in zip(right, pairs, strict=True) if _truth(e, "problem").form == form]
        beside[form] = sum(of_form) / len(of_form)
    return share("final number right", right, beside)


def _transcript(pairs: Pairs) -> Score:
    references = [str(example.target[Modality.TEXT]) for example, _ in pairs]
    made = [result.text or "" for _, result in pairs]
    errors = word_error_rate(references, made)
    other = shuffled_error_rate(references, made)
    beside = {
        "other_sentence": other.rate,
        "sentences_right": errors.sentences_right,
        "other_sentences_right": other.sentences_right,
    }
    return Score(metric="word error rate", score=errors.rate, ci95=errors.ci95, n=errors.num_sentences, beside=beside)


def _spoken(pairs: Pairs, *, is_long: bool = False) -> Score:
    """Word errors of what is said, beside those of the target voice saying the same, and of another sentence."""
    grammar = sentence.grammar(NAMES[:NUM_OBJECTS], is_long=is_long)
    references = [_said(example) for example, _ in pairs]
    heard = [_heard(result.audio, grammar) for _, result in pairs]
    errors = word_error_rate(references, heard)
    other = shuffled_error_rate(references, heard)
    beside = {
        "other_sentence": other.rate,
        "sentences_right": errors.sentences_right,
        "other_sentences_right": other.sentences_right,
    }
    sources = [example.target[Modality.SPEECH] for example, _ in pairs]
    if all(isinstance(source, Audio) for source in sources):
        recorded = [_heard(source, grammar) for source in sources]  # type: ignore[arg-type]
        opened = [_heard(source, None) for source in sources]  # type: ignore[arg-type]
        beside["source"] = word_error_rate(references, recorded).rate
        beside["source_other_sentence"] = shuffled_error_rate(references, recorded).rate
        beside["source_open_model"] = word_error_rate(references, opened).rate
    beside["open_model"] = word_error_rate(references, [_heard(result.audio, None) for _, result in pairs]).rate
    return Score(metric="word error rate", score=errors.rate, ci95=errors.ci95, n=errors.num_sentences, beside=beside)


def heard(example: Example, result: Result, *, is_long: bool = False) -> tuple[str, str]:
    """The sentence that a spoken target should say, and what is heard of it under the grammar."""
    return _said(example), _heard(result.audio, sentence.grammar(NAMES[:NUM_OBJECTS], is_long=is_long))


def _said(example: Example) -> str:
    """The sentence a spoken target says."""
    truth = example.truth
    assert isinstance(truth, Mapping)
    return str(truth["answer"]) if "answer" in truth else str(truth["sentence"].text)


def _heard(audio: Audio | None, grammar: str | None) -> str:
    if audio is None or len(audio.samples) < audio.rate_hz // 20:
        return ""
    return recognise(audio, grammar)


def _is_description(example: Example) -> bool:
    return bool(_truth(example, "question").topic == "scene")


def _is_thinking(example: Example) -> bool:
    return bool(_truth(example, "is_thinking"))


SUITE: Mapping[str, Row] = MappingProxyType(
    {
        "t2i": Row(task="t2i", judge=_picture),
        "i2t": Row(task="i2t", judge=_scene_text, is_wanted=_is_description),
        "i2t_questions": Row(task="i2t", judge=_answer, is_wanted=lambda example: not _is_description(example)),
        "v2t": Row(task="v2t", judge=_clip_text, is_wanted=_is_description),
        "v2t_questions": Row(task="v2t", judge=_answer, is_wanted=lambda example: not _is_description(example)),
        "i2i": Row(task="i2i", judge=_edited, ceiling=_edited_ceiling),
        "t2v": Row(task="t2v", judge=_video),
        "t2t_thinking": Row(task="t2t", judge=_number, is_wanted=_is_thinking),
        "t2t": Row(task="t2t", judge=_number, is_wanted=lambda example: not _is_thinking(example)),
        "s2t": Row(task="s2t", judge=_transcript),
        "s2t_rms": Row(task="s2t", judge=_transcript, voice="rms"),
        "s2t_espeak": Row(task="s2t", judge=_transcript, voice="en-us+f3"),
        "t2s": Row(task="t2s", judge=_spoken),
        "s2i": Row(task="s2i", judge=_picture),
        "i2s": Row(task="i2s", judge=_spoken),
        "v2s": Row(task="v2s", judge=_spoken),
        "s2s": Row(task="s2s", judge=_spoken),
        "s2v": Row(task="s2v", judge=_video),
        "i2v": Row(task="i2v", judge=_video),
        "v2v": Row(task="v2v", judge=_video),
        "v2i": Row(task="v2i", judge=_frame),
        "ti2ti": Row(task="ti2ti", judge=_both),
        "t2i_large": Row(task="t2i", judge=_picture, num_cells=LARGE_CELLS),
        "i2t_large": Row(task="i2t", judge=_scene_text, is_wanted=_is_description, num_cells=LARGE_CELLS),
        "s2t_long": Row(task="s2t", judge=_transcript, is_long=True),
        "t2s_long": Row(task="t2s", judge=partial(_spoken, is_long=True), is_long=True),
    }
)
"""The report, row by row. `s2t` hears the target voice, `s2t_rms` and `s2t_espeak` voices absent from all training. The
last four are what the third stage teaches."""

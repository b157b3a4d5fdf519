"""The chat around a sentence: a question with the video in it, and an answer with the [ST] tokens in it.

Enters: a sentence, and what is to be answered besides. Leaves: one row of ids, in which the video and the [ST] tokens
have places. Does not know pixels, networks or files.

    <|im_start|> system   You are a helpful assistant.                                          <|im_end|>
    <|im_start|> user     Reference image: VIDEO What is the dog in the Reference image? ..     <|im_end|>
    <|im_start|> assistant  It is (0) ST, (1) ST, .. (9) ST.                                    <|im_end|>

What a user writes is text, whatever it spells: `<|im_start|>`, `<image>` and `[SEG]` in a sentence are spelled out in
ordinary pieces, and its braces are braces. Control ids come from this layout alone.

Source:
    VIRST, arXiv:2603.27060; `AIDASLab/VIRST utils/utils.py` and `utils/preprocess.py`, whose wording the published
    weights have learnt.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from dynin.errors import CheckpointError, ConfigError
from dynin.tokenizers.text import ByteLevelText

VIDEO = -200
"""Stands in a row where the tokens of the video go; no id."""
_START, _END = "<|im_start|>", "<|im_end|>"
_SENTENCE, _MEDIUM, _PLACE, _TOKENS = "{sentence}", "{medium}", "{video}", "{st}"
_OPENING = "Reference {medium}: {video} \n"


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptConfig:
    """The wording; the defaults are the published one."""

    system: str = "You are a helpful assistant."
    phrases: tuple[str, ...] = (
        _OPENING + "What is {sentence} in the Reference {medium}? Please respond with segmentation mask in the Target "
        "Image.",
        _OPENING + "What is {sentence} in the Reference {medium}? Please output segmentation mask in the Target Image.",
        _OPENING + "Please find {sentence} in the Reference {medium} and segment it in the Target Image.",
    )
    """Questions about what a sentence names."""
    questions: tuple[str, ...] = (
        _OPENING
        + "{sentence} Please find it in the Reference {medium} and respond with segmentation mask in the Target "
        "Image.",
        _OPENING
        + "{sentence} Please find it in the Reference {medium} and output segmentation mask in the Target Image.",
    )
    """The same where the sentence is a question itself, that is, ends with a question mark."""
    answers: tuple[str, ...] = (
        "It is {st}.",
        "Sure, {st}.",
        "Sure, it is {st}.",
        "Sure, the segmentation result is {st}.",
    )
    """What the [ST] tokens stand in. They are always there: nothing is generated."""
    names_video: bool = False
    """Call a video a video.

    Parity: the published code calls everything an image, and its weights have seen nothing else."""
    lowercases: bool = True
    """Take sentences in small letters, as the published evaluation does."""
    scored: Literal["answer", "published"] = "answer"
    """What is learnt from text: the assistant's words and the end of its turn, or also the marks around every turn.

    Parity: "published" adds those marks, and every line break that is a piece of its own."""

    def __post_init__(self) -> None:
        """ConfigError for a wording without a place for what it is about."""
        for wordings, needed in (
            (self.phrases + self.questions, (_SENTENCE, _PLACE)),
            (self.answers, (_TOKENS,)),
        ):
            for wording in wordings:
                if any(wording.count(place) != 1 for place in needed):
                    raise ConfigError(f"the wording {wording!r} must have {' and '.join(needed)} in it, each once")
        if not (self.phrases and self.questions and self.answers):
            raise ConfigError("phrases, questions and answers need at least one wording each")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One sentence as ids."""

    ids: tuple[int, ...]
    """`VIDEO` stands once among them."""
    st_places: tuple[int, ...]
    """Indices of the [ST] tokens in `ids`."""
    is_scored: tuple[bool, ...]
    """Which ids are to be foretold."""

    @property
    def video_place(self) -> int:
        """Index of the video in `ids`."""
        return self.ids.index(VIDEO)


class Prompter:
    """Sentences to rows, with one tokenizer and one wording."""

    def __init__(self, text: ByteLevelText, num_st: int, config: PromptConfig | None = None):
        """Take a tokenizer that knows the marks of the chat.

        Raises:
            CheckpointError: If it does not.
        """
        self.text, self.num_st = text, num_st
        self.config = config or PromptConfig()
        if missing := [name for name in (_START, _END) if name not in text.added]:
            raise CheckpointError(
                f"the text tokenizer has no {' and no '.join(missing)}; take the one that came with VideoChat-Flash"
            )
        self.start, self.end = text.added[_START], text.added[_END]
        self.st_id = st_id(text)

    def row(
        self, sentence: str, *, is_video: bool, answer: str | None = None, generator: torch.Generator | None = None
    ) -> Row:
        """One sentence about one video or picture.

        Args:
            answer: Words that follow the [ST] tokens.
            generator: Draws the wording; without it the first one is taken.

        Parity:
            The published evaluation draws its wording too.
        """
        words = " ".join((sentence.lower() if self.config.lowercases else sentence).split())
        wordings = self.config.questions if words.endswith("?") else self.config.phrases
        before, after = _chosen(wordings, generator).split(_PLACE)
        medium = "video" if is_video and self.config.names_video else "image"
        question = [_filled(part, words, medium) for part in (before, after)]
        told = _chosen(self.config.answers, generator).split(_TOKENS)
        pieces = self._turn("system", self.config.system)
        pieces += self._turn("user", question[0], VIDEO, question[1])
        pieces += self._answer(told[0], told[1] if answer is None else f"{told[1]} {answer}")
        return self._marked(pieces)

    def _turn(self, role: str, *parts: str | int) -> list[tuple[int, bool]]:
        """A turn that is given: its ids, none of them to be foretold."""
        first, *rest = parts
        ids = [self.start, *self._joined(f"{role}\n{first}", *rest), self.end, *self.text.encode("\n")]
        return [(at, False) for at in ids]

    def _answer(self, before: str, after: str) -> list[tuple[int, bool]]:
        """The assistant's turn: its words and its end are to be foretold, the [ST] tokens are not.

        The role and the first words are one text, as published; where they part, the ids of the role alone end.
        """
        parts: list[str | int] = [f"{before}(0) ", self.st_id]
        for number in range(1, self.num_st):
            parts += [f", ({number}) ", self.st_id]
        role = len(self.text.encode("assistant\n"))
        ids = self._joined(f"assistant\n{parts[0]}", *parts[1:], after)
        told = [(at, index >= role and at != self.st_id) for index, at in enumerate(ids)]
        return [(self.start, False), *told, (self.end, True), *((at, False) for at in self.text.encode("\n"))]

    def _joined(self, *parts: str | int) -> list[int]:
        """Ids of texts, each by itself, with control ids between them."""
        return [at for part in parts for at in ([part] if isinstance(part, int) else self.text.encode(part))]

    def _marked(self, pieces: list[tuple[int, bool]]) -> Row:
        ids = tuple(at for at, _ in pieces)
        is_scored = [is_told for _, is_told in pieces]
        if self.config.scored == "published":
            last = len(ids) - ids[::-1].index(self.start) - 1
            marks = {self.start, self.end, *self.text.encode("\n")}
            is_scored = [(index >= last or at in marks) and at != self.st_id for index, at in enumerate(ids)]
        return Row(
            ids=ids,
            st_places=tuple(index for index, at in enumerate(ids) if at == self.st_id),
            is_scored=tuple(is_scored),
        )


def st_id(text: ByteLevelText) -> int:
    """The id of the [ST] token, `[SEG]` in published names: the file's own, else the first that no piece has."""
    return text.added.get("[SEG]", max([text.size - 1, *text.added.values()]) + 1)


def _filled(wording: str, words: str, medium: str) -> str:
    """A wording with a sentence in it, whose own braces mean nothing."""
    return words.join(part.replace(_MEDIUM, medium) for part in wording.split(_SENTENCE))


def _chosen(wordings: tuple[str, ...], generator: torch.Generator | None) -> str:
    if generator is None:
        return wordings[0]
    at = torch.randint(len(wordings), (), generator=generator, device=generator.device)
    return wordings[int(at)]

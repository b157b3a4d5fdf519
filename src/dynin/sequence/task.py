"""THE TABLE: a task is a row of ordered segments, some of which are targets.

Enters: nothing. Leaves: `Task` rows in tables: `EMBEDDED_TASKS` for models with the small layout, `PUBLISHED_TASKS`
with the exact prompts of the published 8B model, and those of its ancestors. Does not know ids, tokenizers or networks:
markers are names of special tokens, lengths are names looked up when a row is assembled.

Adding a task is adding a row here; nothing else branches on a task's name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from dynin.types import Modality

TEXT, IMAGE, VIDEO, SPEECH = Modality.TEXT, Modality.IMAGE, Modality.VIDEO, Modality.SPEECH


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """One special token."""

    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """What a user gives or the model makes: text, or the codes of a picture, video or sound."""

    modality: Modality
    is_target: bool = False
    template: str = "{}"
    """For given text: the string that is tokenized, with the user's text in place of the braces."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Literal:
    """Fixed text, tokenized as it stands."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Segments padded to a fixed number of positions; when too long, the first ones and a final EOS are kept."""

    parts: tuple["Segment", ...]
    length: str = "prompt"
    """Name of the length, looked up in the task's lengths."""
    offset: int = 0
    """Added to that length."""
    pad: str = "ipad"
    side: str = "left"
    is_pad_attended: bool = False


Segment = Marker | Content | Literal | Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One row of the table."""

    name: str
    segments: tuple[Segment, ...]
    lengths: Mapping[str, int]
    """Default lengths: target positions by modality, padded blocks by name."""
    dropped: tuple[Modality, ...] = ()
    """Conditions that classifier-free guidance empties in its unconditional branch."""
    ends: Mapping[Modality, tuple[str, ...]] = field(default_factory=lambda: ENDS)
    """Special tokens that end a target of flexible length."""
    question: str = ""
    """Asked where the task takes a text and none was given; empty where one has to be given."""
    shows_reasoning: bool | None = None
    """Whether the answer to a text starts with its reasoning where nothing is said about it: True or False. With False
    the prompt stays as it is; None where the model knows no switch for it."""
    given_px: int | None = None
    """Side of the square that given pictures and frames are cut to; None takes the tokenizer's."""
    reference: str = ""
    """The published code's name for the task."""

    def contents(self) -> Iterator[Content]:
        """All contents in order."""
        yield from _contents(self.segments)

    @property
    def conditions(self) -> tuple[Modality, ...]:
        """Modalities that are given, in order."""
        return tuple(content.modality for content in self.contents() if not content.is_target)

    @property
    def targets(self) -> tuple[Modality, ...]:
        """Modalities that are made, in order."""
        return tuple(content.modality for content in self.contents() if content.is_target)


def _contents(segments: tuple[Segment, ...]) -> Iterator[Content]:
    for segment in segments:
        if isinstance(segment, Content):
            yield segment
        elif isinstance(segment, Block):
            yield from _contents(segment.parts)


ENDS: Mapping[Modality, tuple[str, ...]] = MappingProxyType({TEXT: ("eos",), SPEECH: ("eoa", "eos")})
_CHAT_ENDS: Mapping[Modality, tuple[str, ...]] = MappingProxyType({**ENDS, TEXT: ("eos", "eot")})


def marks(*names: str) -> tuple[Marker, ...]:
    """Several markers in a row."""
    return tuple(Marker(name=name) for name in names)


# ---------------------------------------------------------------------------------------------------------------------
# The embedded layout:  task marker, each condition between its markers, each target after its opening marker.
#
#   i2t   <i2t> <soi> picture <eoi> <start_header> question <end_header> <bos> TEXT
#   t2v   <t2v> <start_header> prompt <end_header> <sov> VIDEO <eov>
#   i2i   <i2i> <start_header> instruction <end_header> <soi> picture <eoi> <soi> PICTURE <eoi>
#   s2s   <s2s> <soa> question <eoa> <soa> SPEECH
#
# Where a picture or video is changed, the words come first: so every code lies at a fixed distance from the one it may
# be a copy of, however long the words are. The published layout reaches the same by a block of fixed length.

_GIVEN = {
    TEXT: ("start_header", "end_header"),
    IMAGE: ("soi", "eoi"),
    VIDEO: ("sov", "eov"),
    SPEECH: ("soa", "eoa"),
}
_MADE: dict[Modality, tuple[tuple[str, ...], tuple[str, ...]]] = {
    TEXT: (("bos",), ()),
    IMAGE: (("soi",), ("eoi",)),
    VIDEO: (("sov",), ("eov",)),
    SPEECH: (("soa",), ()),
}
_EMBEDDED_LENGTHS = MappingProxyType({TEXT: 16, IMAGE: 16, VIDEO: 64, SPEECH: 32})


def _embedded(name: str, conditions: tuple[Modality, ...], targets: tuple[Modality, ...], question: str = "") -> Task:
    """A row of the embedded layout. Guidance empties the text, or the one condition where there is no text."""
    segments: list[Segment] = [Marker(name=name)]
    for modality in conditions:
        opening, closing = _GIVEN[modality]
        segments += [Marker(name=opening), Content(modality=modality), Marker(name=closing)]
    for modality in targets:
        before, after = _MADE[modality]
        segments += [*marks(*before), Content(modality=modality, is_target=True), *marks(*after)]
    lengths: dict[str, int] = {modality: _EMBEDDED_LENGTHS[modality] for modality in targets}
    return Task(
        name=name,
        segments=tuple(segments),
        lengths=lengths,
        dropped=(TEXT,) if TEXT in conditions else conditions,
        question=question,
        shows_reasoning=True if conditions == targets == (TEXT,) else None,
    )


EMBEDDED_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            _embedded("t2t", (TEXT,), (TEXT,)),
            _embedded("i2t", (IMAGE, TEXT), (TEXT,), "What is in the picture?"),
            _embedded("v2t", (VIDEO, TEXT), (TEXT,), "What happens in the video?"),
            _embedded("s2t", (SPEECH,), (TEXT,)),
            _embedded("t2i", (TEXT,), (IMAGE,)),
            _embedded("i2i", (TEXT, IMAGE), (IMAGE,)),
            _embedded("v2i", (TEXT, VIDEO), (IMAGE,)),
            _embedded("s2i", (SPEECH,), (IMAGE,)),
            _embedded("t2v", (TEXT,), (VIDEO,)),
            _embedded("i2v", (TEXT, IMAGE), (VIDEO,)),
            _embedded("v2v", (TEXT, VIDEO), (VIDEO,)),
            _embedded("s2v", (SPEECH,), (VIDEO,)),
            _embedded("t2s", (TEXT,), (SPEECH,)),
            _embedded("i2s", (IMAGE,), (SPEECH,)),
            _embedded("v2s", (VIDEO,), (SPEECH,)),
            _embedded("s2s", (SPEECH,), (SPEECH,)),
            _embedded("ti2ti", (TEXT, IMAGE), (IMAGE, TEXT)),
        )
    }
)


# ---------------------------------------------------------------------------------------------------------------------
# The published layout, position by position.

_USER: tuple[Segment, ...] = (*marks("start_header"), Literal(text="user"), *marks("end_header"))
_ASSISTANT: tuple[Segment, ...] = (
    *marks("eot", "start_header"),
    Literal(text="assistant"),
    *marks("end_header"),
    Literal(text="\n"),
)
_PROMPT = Content(modality=TEXT)
_CHAT: tuple[Segment, ...] = (*_USER, Content(modality=TEXT, template="\n{}"), *_ASSISTANT)
_READ_ALOUD = Content(modality=TEXT, template="\nRead the given sentence aloud.\n{}")
_DESCRIBE = "Please describe this input in detail."


def _made(modality: Modality) -> Content:
    return Content(modality=modality, is_target=True)


def _span(opening: str, content: Content, closing: str) -> tuple[Segment, ...]:
    return (Marker(name=opening), content, Marker(name=closing))


def _picture(content: Content) -> tuple[Segment, ...]:
    return _span("soi", content, "eoi")


_GIVEN_IMAGE = _picture(Content(modality=IMAGE))
_GIVEN_VIDEO = _picture(Content(modality=VIDEO))
_GIVEN_SPEECH = _span("soa", Content(modality=SPEECH), "eoa")
_PROMPT_BLOCK = Block(parts=(*marks("bos"), _PROMPT, *marks("eos")))

_PUBLISHED_ROWS = (
    Task(
        name="t2t",
        reference="text block sampler",
        segments=(*marks("bos"), *_CHAT, _made(TEXT)),
        lengths={TEXT: 512},
        dropped=(TEXT,),
        ends=_CHAT_ENDS,
        shows_reasoning=False,
    ),
    Task(
        name="i2t",
        reference="mmu",
        segments=(*marks("mmu"), *_GIVEN_IMAGE, *marks("bos"), *_CHAT, _made(TEXT)),
        lengths={TEXT: 1024},
        dropped=(TEXT,),
        ends=_CHAT_ENDS,
        question=_DESCRIBE,
        given_px=336,
    ),
    Task(
        name="v2t",
        reference="v2t",
        segments=(*marks("v2t"), *_GIVEN_VIDEO, *marks("bos"), *_CHAT, _made(TEXT)),
        lengths={TEXT: 128},
        dropped=(TEXT,),
        ends=_CHAT_ENDS,
        question=_DESCRIBE,
        given_px=336,
    ),
    Task(
        name="t2i",
        reference="t2i_gen",
        segments=(Block(parts=(*marks("t2i", "bos"), _PROMPT, *marks("eos"))), *_picture(_made(IMAGE))),
        lengths={"prompt": 129, IMAGE: 1024},
        dropped=(TEXT,),
    ),
    Task(
        name="i2i",
        reference="i2i (training template)",
        segments=(*marks("i2i"), *_GIVEN_IMAGE, _PROMPT_BLOCK, *_picture(_made(IMAGE))),
        lengths={"prompt": 129, IMAGE: 441},
        dropped=(TEXT,),
        given_px=336,
    ),
    Task(
        name="s2t",
        reference="s2t_gen",
        segments=(*marks("s2t"), *_GIVEN_SPEECH, *_CHAT, _made(TEXT)),
        lengths={TEXT: 128},
        dropped=(SPEECH,),
        ends=_CHAT_ENDS,
        question="Transcribe the given audio.",
    ),
    Task(
        name="t2s",
        reference="t2s_gen",
        segments=(
            Block(parts=(*marks("t2s", "bos"), *_USER, _READ_ALOUD, *_ASSISTANT, *marks("eos"))),
            *marks("soa"),
            _made(SPEECH),
        ),
        lengths={"prompt": 1025, SPEECH: 383},
        dropped=(TEXT,),
    ),
    Task(
        name="s2s",
        reference="s2s_gen",
        segments=(
            *marks("s2s"),
            *_USER,
            Literal(text="\n"),
            *_GIVEN_SPEECH,
            *_ASSISTANT,
            *marks("soa"),
            _made(SPEECH),
        ),
        lengths={SPEECH: 512},
        dropped=(SPEECH,),
    ),
    Task(
        name="v2s",
        reference="v2s_gen",
        segments=(
            *marks("v2s"),
            *_GIVEN_VIDEO,
            Block(
                parts=(*marks("bos"), _PROMPT, *marks("eos")), offset=-1, pad="eos", side="right", is_pad_attended=True
            ),
            *marks("soa"),
            _made(SPEECH),
        ),
        lengths={"prompt": 1025, SPEECH: 255},
        dropped=(TEXT,),
        question="Narrate the video.",
        given_px=224,
    ),
    Task(
        name="ti2ti",
        reference="ti2ti_gen",
        segments=(*marks("ti2ti"), *_GIVEN_IMAGE, _PROMPT_BLOCK, *_picture(_made(IMAGE)), _made(TEXT)),
        lengths={"prompt": 129, IMAGE: 441, TEXT: 129},
        dropped=(TEXT,),
        given_px=336,
    ),
)

PUBLISHED_TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in _PUBLISHED_ROWS})

PUBLISHED_ALTERNATIVES: Mapping[str, Task] = MappingProxyType(
    {
        "i2i_gen": Task(
            name="i2i",
            reference="i2i_gen",
            segments=(
                *marks("t2i"),
                *_GIVEN_IMAGE,
                *marks("bos"),
                _PROMPT_BLOCK,
                *marks("eos"),
                *_picture(_made(IMAGE)),
            ),
            lengths={"prompt": 129, IMAGE: 441},
            dropped=(TEXT,),
            given_px=336,
        ),
        "t2s_fixed_gen": Task(
            name="t2s",
            reference="t2s_fixed_gen",
            segments=(
                Block(parts=(*marks("t2s", "bos"), *_USER, _READ_ALOUD, *_ASSISTANT, *marks("eos"))),
                *marks("soa"),
                _made(SPEECH),
                *marks("eoa"),
            ),
            lengths={"prompt": 1025, SPEECH: 256},
            dropped=(TEXT,),
            ends={},
        ),
    }
)
"""Further prompts of the published code, by its own names."""


# ---------------------------------------------------------------------------------------------------------------------
# The ancestors. MMaDA has the published rows of its modalities, with longer prompts for pictures; LLaDA chats, with an
# empty line after each header and no switch for its reasoning.

MMADA_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "t2t": replace(PUBLISHED_TASKS["t2t"], shows_reasoning=None),
        "i2t": replace(PUBLISHED_TASKS["i2t"], given_px=512),
        "t2i": replace(PUBLISHED_TASKS["t2i"], lengths={"prompt": 513, IMAGE: 1024}),
    }
)

LLADA_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "t2t": Task(
            name="t2t",
            reference="generate",
            segments=(
                *marks("bos"),
                *_USER,
                Content(modality=TEXT, template="\n\n{}"),
                *marks("eot", "start_header"),
                Literal(text="assistant"),
                *marks("end_header"),
                Literal(text="\n\n"),
                _made(TEXT),
            ),
            lengths={TEXT: 128},
            dropped=(TEXT,),
            ends=_CHAT_ENDS,
        )
    }
)

TABLES: Mapping[str, Mapping[str, Task]] = MappingProxyType(
    {"embedded": EMBEDDED_TASKS, "published": PUBLISHED_TASKS, "mmada": MMADA_TASKS, "llada": LLADA_TASKS}
)
"""The task table of a vocabulary, by the vocabulary's name."""

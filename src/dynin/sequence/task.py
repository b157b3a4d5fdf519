"""THE TABLE: a task is a row of ordered segments, some of which are targets.

Enters: nothing. Leaves: `Task` rows in two tables, `EMBEDDED_TASKS` for models with the small layout and
`PUBLISHED_TASKS` with the exact prompts of the published 8B model. Does not know ids, tokenizers or networks: markers
are names of special tokens, lengths are names looked up when a row is assembled.

Adding a task is adding a row here; nothing else branches on a task's name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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


def _embedded(name: str, conditions: tuple[Modality, ...], targets: tuple[Modality, ...]) -> Task:
    """A row of the embedded layout. Guidance empties the text, or the one condition where there is no text."""
    segments: list[Segment] = [Marker(name=name)]
    for modality in conditions:
        opening, closing = _GIVEN[modality]
        segments += [Marker(name=opening), Content(modality=modality), Marker(name=closing)]
    for modality in targets:
        before, after = _MADE[modality]
        segments += [*marks(*before), Content(modality=modality, is_target=True), *marks(*after)]
    lengths: dict[str, int] = {modality: _EMBEDDED_LENGTHS[modality] for modality in targets}
    dropped = (TEXT,) if TEXT in conditions else conditions
    return Task(name=name, segments=tuple(segments), lengths=lengths, dropped=dropped)


EMBEDDED_TASKS: Mapping[str, Task] = MappingProxyType(
    {
        task.name: task
        for task in (
            _embedded("t2t", (TEXT,), (TEXT,)),
            _embedded("i2t", (IMAGE, TEXT), (TEXT,)),
            _embedded("v2t", (VIDEO, TEXT), (TEXT,)),
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
    ),
    Task(
        name="i2t",
        reference="mmu",
        segments=(*marks("mmu"), *_GIVEN_IMAGE, *marks("bos"), *_CHAT, _made(TEXT)),
        lengths={TEXT: 1024},
        dropped=(TEXT,),
    ),
    Task(
        name="v2t",
        reference="v2t",
        segments=(*marks("v2t"), *_GIVEN_VIDEO, *marks("bos"), *_CHAT, _made(TEXT)),
        lengths={TEXT: 128},
        dropped=(TEXT,),
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
    ),
    Task(
        name="s2t",
        reference="s2t_gen",
        segments=(*marks("s2t"), *_GIVEN_SPEECH, *_CHAT, _made(TEXT)),
        lengths={TEXT: 128},
        dropped=(SPEECH,),
    ),
    Task(
        name="t2s",
        reference="t2s_gen",
        segments=(
            Block(parts=(*marks("t2s", "bos"), *_CHAT, *marks("eos"))),
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
    ),
    Task(
        name="ti2ti",
        reference="ti2ti_gen",
        segments=(*marks("ti2ti"), *_GIVEN_IMAGE, _PROMPT_BLOCK, *_picture(_made(IMAGE)), _made(TEXT)),
        lengths={"prompt": 129, IMAGE: 441, TEXT: 129},
        dropped=(TEXT,),
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
        ),
        "t2s_fixed_gen": Task(
            name="t2s",
            reference="t2s_fixed_gen",
            segments=(
                Block(parts=(*marks("t2s", "bos"), *_CHAT, *marks("eos"))),
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

TABLES: Mapping[str, Mapping[str, Task]] = MappingProxyType({"embedded": EMBEDDED_TASKS, "published": PUBLISHED_TASKS})
"""The task table of a vocabulary, by the vocabulary's name."""

"""Captions of clips: said in one canonical way, asked for in many, and read back.

Enters: `Clip` values, text. Leaves: text, `ClipSlots`. Does not know: pixels, splits, tasks.

    a dog moves right on a blue background
    a small dog moves up and a star stays still on a red background
    a dog grows on a white background
"""

import re
from dataclasses import dataclass

import numpy as np

from dynin.data.emoji_world import wording
from dynin.data.emoji_world.clip import Clip, Motion
from dynin.data.emoji_world.scene import BACKGROUNDS

VERBS: dict[Motion, str] = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "still": "stays still",
    "grows": "grows",
    "shrinks": "shrinks",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipSlots:
    """What a caption of a clip claims."""

    mover: str
    size: str
    """Size of the moving thing; "large" for one that grows or shrinks."""
    motion: Motion
    still: tuple[str, str] | None
    """Name and size of the second thing."""
    background: str | None


def _mover_size(clip: Clip) -> str:
    return "large" if clip.motion in ("grows", "shrinks") else clip.mover.size


def slots(clip: Clip) -> ClipSlots:
    """What the canonical caption claims."""
    still = None if clip.still is None else (clip.still.name, clip.still.size)
    return ClipSlots(
        mover=clip.mover.name,
        size=_mover_size(clip),
        motion=clip.motion,
        still=still,
        background=clip.background,
    )


def describes(claim: ClipSlots | None, clip: Clip) -> bool:
    """Whether a claim is exactly right."""
    return claim is not None and claim == slots(clip)


def _content(clip: Clip, verb: str) -> str:
    text = f"{wording.one_of(clip.mover.name, _mover_size(clip))} {verb}"
    if clip.still is not None:
        text += f" and {wording.one_of(clip.still.name, clip.still.size)} stays still"
    return text


def canonical(clip: Clip) -> str:
    """The caption that answers "What happens in the video?"."""
    return f"{_content(clip, VERBS[clip.motion])} {wording.on_background(clip.background)}"


_OTHER_VERBS: dict[Motion, tuple[str, ...]] = {
    "left": ("moves to the left", "goes left", "is moving left"),
    "right": ("moves to the right", "goes right", "is moving right"),
    "up": ("goes up", "is moving up", "rises"),
    "down": ("goes down", "is moving down", "falls"),
    "still": ("does not move", "stands still"),
    "grows": ("gets bigger", "is growing"),
    "shrinks": ("gets smaller", "is shrinking"),
}
_OPENINGS = (
    "a video in which {}", "make a video in which {}", "show me a video where {}", "a clip where {}", "film how {}",
    "show how {}", "create a video where {}", "video: {}",
)  # fmt: skip
_GROUNDS = (
    "{content} {ground}", "{content} {ground}", "{content} on {colour}", "{ground}, {content}",
    "{content} in front of {a} {colour} background",
)  # fmt: skip
PLAIN_SHARE = 0.4
"""Share of prompts in canonical words."""


def prompt(clip: Clip, generator: np.random.Generator) -> str:
    """A request for the clip, in varied wording."""
    if generator.random() < PLAIN_SHARE:
        return canonical(clip)
    verb = VERBS[clip.motion]
    if generator.random() < 0.5:
        verb = wording.pick(_OTHER_VERBS[clip.motion], generator)
    colour = clip.background
    text = wording.pick(_GROUNDS, generator).format(
        content=_content(clip, verb),
        ground=wording.on_background(colour),
        colour=colour,
        a=wording.article(colour),
    )
    if generator.random() < 0.5 and not text.startswith("on "):
        text = wording.pick(_OPENINGS, generator).format(text)
    return wording.vary_form(text, generator)


_MOTIONS_BY_VERB: dict[str, Motion] = {
    verb: motion for motion in VERBS for verb in (VERBS[motion], *_OTHER_VERBS[motion])
}
_VERB = "(" + "|".join(sorted(_MOTIONS_BY_VERB, key=len, reverse=True)) + ")"
_THING = wording.ARTICLE + wording.SMALL + wording.NAME
_GROUND = rf"(?:on|in\s+front\s+of|with)\s+{wording.ARTICLE}({'|'.join(BACKGROUNDS)})(?:\s+background)?"
_LEAD = (
    r"(?:video\s+|(?:film|show)\s+how\s+"
    r"|(?:(?:make|show\s+me|show|create)\s+)?an?\s+(?:video|clip)\s+(?:of|where|in\s+which)\s+"
    r"|(?:the|this)\s+video\s+shows\s+)?"
)
_PATTERN = re.compile(
    rf"{_LEAD}(?:{_GROUND}\s+)?{_THING}\s+{_VERB}"
    rf"(?:\s+and\s+{_THING}\s+(?:stays|staying|is|stands)\s+still)?(?:\s+{_GROUND})?"
)


def parse(text: str) -> ClipSlots | None:
    """Read a caption or a request; articles, capitals and marks do not matter. None where it is not understood."""
    match = _PATTERN.fullmatch(wording.tidy(text))
    if match is None:
        return None
    groups = [None if group is None else " ".join(group.split()) for group in match.groups()]
    before, size_word, mover, verb, still_size, still, after = groups
    if before is not None and after is not None:
        return None
    assert mover is not None
    assert verb is not None
    motion = _MOTIONS_BY_VERB[verb]
    return ClipSlots(
        mover=mover,
        size="large" if motion in ("grows", "shrinks") else wording.size_named(size_word),
        motion=motion,
        still=None if still is None else (still, wording.size_named(still_size)),
        background=after if before is None else before,
    )

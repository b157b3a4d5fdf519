"""Which form a sentence has, and how often each of a collection is to be drawn so that forms keep their shares.

Enters: sentences of the spoken domain. Leaves: forms, and a weight for each sentence. Does not know sounds.

A collection of different sentences holds little of a form that has few: of 24,000 sentences four tell the background,
though in the domain one of 75 does. Drawn evenly they would hardly ever be said.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from dynin.data.emoji_world import clip_caption, problem, wording
from dynin.data.emoji_world.scene import BACKGROUNDS, RELATIONS
from dynin.data.emoji_world.sentence import ANSWERS, DIRECTIONS, JOINING, QUESTIONS, WEIGHTS, SentenceKind

Form = tuple[SentenceKind, int]
"""A kind of sentence, and which of its wordings."""

_NUMBER = "|".join(sorted(wording.numbers_by_words(), key=len, reverse=True))
_OPERATION = "|".join(problem.SPOKEN_OPERATORS.values())
_GROUND = f"on an? (?:{'|'.join(BACKGROUNDS)}) background"
_SLOTS = {
    "name": r"\S.*", "other": r"\S.*", "one": r"an? \S.*", "several": r"\S.*", "count": "(?:two|three)",
    "held": f"(?:{'|'.join(RELATIONS)})", "colour": f"(?:{'|'.join(BACKGROUNDS)})",
    "direction": f"(?:{'|'.join(DIRECTIONS)})",
}  # fmt: skip


def _patterns() -> tuple[tuple[Form, re.Pattern[str]], ...]:
    """Every form, those that say most about a sentence first."""
    verbs = "|".join(clip_caption.VERBS.values())
    forms: list[tuple[Form, str]] = [
        (("sum_question", 0), f"what is (?:{_NUMBER}) (?:{_OPERATION}) (?:{_NUMBER})"),
        (("sum_answer", 0), f"(?:{_NUMBER}) (?:{_OPERATION}) (?:{_NUMBER}) is (?:{_NUMBER})"),
        (("clip", 0), f"an? .* (?:{verbs})(?: and an? .* stays still)? {_GROUND}"),
        (("pair", 0), f"an? .* {_SLOTS['held']} an? .* {_GROUND}"),
        (("count", 0), f"(?:two|three) .* {_GROUND}"),
        (("one", 0), f"an? .* {_GROUND}"),
    ]
    kinds: tuple[tuple[SentenceKind, tuple[str, ...]], ...] = (("question", QUESTIONS), ("answer", ANSWERS))
    for kind, wordings in kinds:
        in_order = sorted(range(len(wordings)), key=lambda at: "{" in wordings[at])
        forms += [((kind, at), wordings[at].format(**_SLOTS)) for at in in_order]
    return tuple((form, re.compile(pattern)) for form, pattern in forms)


_PATTERNS = _patterns()
_NUM_FORMS = Counter(kind for (kind, _), _ in _PATTERNS)


def form_of(text: str) -> Form | None:
    """The form of a sentence; None for long ones and for what the domain does not say."""
    if JOINING in text:
        return None
    return next((form for form, pattern in _PATTERNS if pattern.fullmatch(text)), None)


def weights_of(texts: Sequence[str]) -> Float[np.ndarray, " N"]:
    """How often each text is to be drawn, in sum 1.

    Sentences of a form share what the form weighs in the domain; texts of no form keep the share that they have.
    """
    forms = [form_of(text) for text in texts]
    found = Counter(forms)
    said = {form: WEIGHTS[form[0]] / _NUM_FORMS[form[0]] for form in found if form is not None}
    known = 1 - found[None] / max(1, len(texts))
    scale = known / (sum(said.values()) or 1.0)
    share: dict[Form | None, float] = {form: scale * weight / found[form] for form, weight in said.items()}
    share[None] = 1 / max(1, len(texts))
    return np.array([share[form] for form in forms])

"""The parts of a network that a recipe can name: rows of both tables by modality, attention, feed-forward, norms.

Enters: the sizes of a network and the layout of its ids. Leaves: `Part` values that cover every number once. Does not
know coefficients or files; every id comes from the stored layout.

    embed, output     text | specials | specials_new | image | speech | padding       by rows
    blocks            attention | mlp | norms                                          by layers
    norm              final_norm
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from dynin.config import suggest
from dynin.errors import ConfigError
from dynin.model.config import ModelConfig
from dynin.model.convert import published_names
from dynin.model.remap import TABLES
from dynin.vocabulary import Range, Vocabulary

ROWS = ("text", "specials", "specials_new", "image", "speech", "padding")
LAYERED = ("attention", "mlp", "norms")
GROUPS = (*ROWS, *LAYERED, "final_norm")
TABLE_NAMES: Mapping[str, str] = MappingProxyType({name.removesuffix(".weight"): name for name in TABLES})
NEW_SPECIALS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "embedded": tuple("sov eov soa eoa v2t s2t v2i s2i t2v i2v v2v s2v t2s i2s v2s s2s".split()),
        **dict.fromkeys(("published", "mmada", "llada"), ("s2t", "soa", "eoa", "t2s", "v2t")),
    }
)
"""By layout, the control ids that a backbone of text and pictures has not learned: those of speech, and of videos."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some numbers of one tensor that are merged in one way."""

    tensor: str
    """By our name."""
    group: str
    layer: int | None
    """Of a block; None outside the blocks."""

    @property
    def is_rows(self) -> bool:
        """Whether it is rows of a table, not a whole tensor."""
        return self.group in ROWS


def parts_of(config: ModelConfig) -> Iterator[Part]:
    """Every part of a network, tensor by tensor in the order in which they are stored."""
    for name in published_names(config).values():
        if name in TABLES:
            yield from (Part(tensor=name, group=group, layer=None) for group in ROWS)
        elif name.startswith("blocks."):
            _, layer, inner, *_ = name.split(".")
            yield Part(tensor=name, group=inner if inner in LAYERED else "norms", layer=int(layer))
        else:
            yield Part(tensor=name, group="final_norm", layer=None)


def rows_of(layout: Vocabulary, group: str, new: Collection[str] = ()) -> tuple[Range, ...]:
    """The ids of a group of rows, as ranges from low to high; the groups cover every row once.

    `text` is every id below the first media code that has no name, reserved ones included; `padding` every id that
    means nothing.

    Args:
        new: Names of the control ids that belong to `specials_new`; by default those of the layout's family.

    Raises:
        ConfigError: If a name is none of the layout's control ids.
    """
    new = new or NEW_SPECIALS.get(layout.name, ())
    if unknown := [name for name in new if name not in layout.special]:
        raise ConfigError(f"specials_new names {unknown[0]!r}{suggest(unknown[0], layout.special)}")
    fresh = sorted(layout[name] for name in new)
    known = sorted(set(layout.special.values()) - set(fresh))
    text_len = min(layout.image.start, layout.speech.start)
    match group:
        case "specials":
            return tuple(_runs(known))
        case "specials_new":
            return tuple(_runs(fresh))
        case "image" | "speech":
            span = layout.image if group == "image" else layout.speech
            return (span,) if len(span) else ()
        case "text":
            return tuple(_between(Range(start=0, stop=text_len), [*_runs(known), *_runs(fresh)]))
        case _:
            taken = [layout.image, layout.speech, *_runs(known), *_runs(fresh)]
            return tuple(_between(Range(start=text_len, stop=layout.size), taken))


def _runs(ids: list[int]) -> Iterator[Range]:
    """Sorted ids as ranges."""
    start = previous = None
    for token_id in ids:
        if previous is None or token_id != previous + 1:
            if start is not None and previous is not None:
                yield Range(start=start, stop=previous + 1)
            start = token_id
        previous = token_id
    if start is not None and previous is not None:
        yield Range(start=start, stop=previous + 1)


def _between(whole: Range, taken: list[Range]) -> Iterator[Range]:
    """What of a range lies in none of the others."""
    start = whole.start
    for span in sorted(taken, key=lambda span: span.start):
        stop = min(span.start, whole.stop)
        if start < stop:
            yield Range(start=start, stop=stop)
        start = max(start, span.stop)
    if start < whole.stop:
        yield Range(start=start, stop=whole.stop)

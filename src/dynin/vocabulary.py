"""The one id space: which ids belong to which modality, and the name of every special id.

Enters: codes of a modality, or names of special tokens. Leaves: ids of the unified vocabulary, and the way back.
Does not know how codes are made. A layout is stored in a checkpoint's config and compared at load; no number here is
ever derived from the length of a text tokenizer.

    PUBLISHED   [ text 0..126080 | specials ..126349 | image 8192 | speech 4096 | spare ]        138,752 rows
    EMBEDDED    [ text 0..1024   | specials ..1088   | image      | speech      | spare ]
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType

import torch
from jaxtyping import Int
from torch import Tensor

from dynin.errors import VocabularyError
from dynin.types import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Half-open ids [start, stop)."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Number of ids."""
        return self.stop - self.start

    def __contains__(self, token_id: object) -> bool:
        """Whether an id lies inside."""
        return isinstance(token_id, int) and self.start <= token_id < self.stop


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """One layout of the id space.

    Video frames use the image range; a modality is told apart by its begin and end markers.
    """

    name: str
    size: int
    """Rows of the embedding table and of the output head."""
    text: Range
    image: Range
    speech: Range
    special: Mapping[str, int]
    """Every control id by name; all of them lie outside the ranges of image and speech."""

    def __post_init__(self) -> None:
        """Check that ranges and specials do not overlap and fit."""
        spans = sorted((self.text, self.image, self.speech), key=lambda span: span.start)
        for before, after in zip(spans, spans[1:], strict=False):
            if before.stop > after.start:
                raise VocabularyError(f"ranges of vocabulary {self.name!r} overlap at id {after.start}")
        if spans[-1].stop > self.size:
            raise VocabularyError(f"vocabulary {self.name!r} needs {spans[-1].stop} rows, but has {self.size}")
        for name, token_id in self.special.items():
            if not 0 <= token_id < self.size or any(token_id in span for span in spans):
                raise VocabularyError(f"special token {name!r} (id {token_id}) lies inside a modality's range")
        if len(set(self.special.values())) != len(self.special):
            raise VocabularyError(f"two special tokens of vocabulary {self.name!r} share an id")

    def __getitem__(self, name: str) -> int:
        """The id of a special token by name."""
        if name not in self.special:
            raise VocabularyError(
                f"no special token {name!r} in vocabulary {self.name!r}; it has {sorted(self.special)}"
            )
        return self.special[name]

    @property
    def pad_id(self) -> int:
        """The id that fills rows of a batch up; it is never attended."""
        return self.special["pad"] if "pad" in self.special else self["ipad"]

    def range_of(self, modality: Modality) -> Range:
        """The ids that carry content of a modality."""
        return {
            Modality.TEXT: self.text,
            Modality.IMAGE: self.image,
            Modality.VIDEO: self.image,
            Modality.SPEECH: self.speech,
        }[modality]

    def codes_to_ids(self, modality: Modality, codes: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Codes of a modality's tokenizer to ids.

        Raises:
            VocabularyError: If a code is outside the modality's codebook.
        """
        span = self.range_of(modality)
        _check_bounds(codes, 0, len(span), f"{modality} code")
        return codes + span.start

    def ids_to_codes(self, modality: Modality, ids: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Ids to codes of a modality's tokenizer.

        Raises:
            VocabularyError: If an id is outside the modality's range.
        """
        span = self.range_of(modality)
        _check_bounds(ids, span.start, span.stop, f"{modality} id")
        return ids - span.start

    def allowed_ids(self, modality: Modality, *extra: str) -> Int[Tensor, " A"]:
        """The ids a target of this modality may take: its range, then the named special tokens."""
        span = self.range_of(modality)
        return torch.tensor([*range(span.start, span.stop), *(self[name] for name in extra)])

    def to_dict(self) -> dict[str, object]:
        """The layout as plain values, to be stored in a checkpoint's config."""
        return {
            "name": self.name,
            "size": self.size,
            **{key: asdict(getattr(self, key)) for key in ("text", "image", "speech")},
            "special": dict(self.special),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Vocabulary":
        """The inverse of `to_dict`; VocabularyError when something is missing or of the wrong kind."""
        try:
            ranges = {key: Range(**values[key]) for key in ("text", "image", "speech")}  # type: ignore[arg-type]
            special = {str(name): int(token_id) for name, token_id in values["special"].items()}  # type: ignore[attr-defined]
            return cls(
                name=str(values["name"]),
                size=int(values["size"]),  # type: ignore[call-overload]
                special=MappingProxyType(special),
                **ranges,
            )
        except VocabularyError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise VocabularyError(
                f"the vocabulary layout in the config is incomplete ({error}); it needs name, size, text, image, "
                "speech (each with start and stop) and special"
            ) from error

    def require_equal(self, other: "Vocabulary") -> None:
        """Raise a VocabularyError that names the first difference, if there is one."""
        ours, theirs = self.to_dict(), other.to_dict()
        for key in ("size", "text", "image", "speech", "special"):
            mine, yours, place = ours[key], theirs[key], key
            if mine == yours:
                continue
            if key == "special":
                names = {**self.special, **other.special}
                name = next(name for name in names if self.special.get(name) != other.special.get(name))
                mine, yours = self.special.get(name, "none"), other.special.get(name, "none")
                place = f"special {name}"
            raise VocabularyError(
                f"vocabulary layouts differ in {place!r}: {self.name} has {mine}, {other.name} has {yours}; "
                "load the checkpoint with the layout it was trained with, or remap its rows"
            )


def _check_bounds(values: Tensor, start: int, stop: int, what: str) -> None:
    """Raise a VocabularyError naming the first value outside [start, stop)."""
    if values.numel() == 0:
        return
    low, high = int(values.min()), int(values.max())
    if low < start or high >= stop:
        wrong = low if low < start else high
        raise VocabularyError(f"{what} {wrong} is outside [{start}, {stop})")


_CONTROL = (
    "mask bos eos pad ipad soi eoi sov eov soa eoa start_header end_header eot "
    "t2t i2t v2t s2t t2i i2i v2i s2i t2v i2v v2v s2v t2s i2s v2s s2s ti2ti"
).split()

_PUBLISHED_RESERVED = (
    "soi eoi sov eov t2i mmu t2v v2v lvg ipad r2i i2i s2t soa eoa t2s v2t s2s v2s ti2ti t2ti think end_think"
).split()


def published(
    text_len: int = 126_349,
    *,
    name: str = "published",
    size: int = 138_752,
    image_codes: int = 8192,
    speech_codes: int = 4096,
) -> Vocabulary:
    """The layout of the published 8B checkpoint and of its ancestors.

    Args:
        text_len: Number of ids below the first image code. The LLaDA tokenizer gives 126,349; checkpoints trained
            after 23 names were appended to it use 126,372, and some use the padded 126,464. A checkpoint's config
            says which; nothing here counts a tokenizer.
        name: "published"; "mmada", which knows no speech; or "llada", which knows text alone. All three keep their
            control ids among the reserved ones of the LLaDA tokenizer.
        size: Rows of the tables.
        image_codes: Length of the range of pictures and videos; 0 for none.
        speech_codes: Length of the range of speech; 0 for none.

    Source:
        Dynin-Omni, prompting utilities and configuration; LLaDA-8B tokenizer (special ids).
    """
    special = {"bos": 126_080, "eos": 126_081, "mask": 126_336}
    special |= {name: 126_084 + index for index, name in enumerate(_PUBLISHED_RESERVED)}
    special |= {"start_header": 126_346, "end_header": 126_347, "eot": 126_348}
    return Vocabulary(
        name=name,
        size=size,
        text=Range(start=0, stop=126_080),
        image=Range(start=text_len, stop=text_len + image_codes),
        speech=Range(start=text_len + image_codes, stop=text_len + image_codes + speech_codes),
        special=MappingProxyType(special),
    )


def embedded(*, text_size: int, image_codes: int, speech_codes: int) -> Vocabulary:
    """The layout of small models: text, 64 control ids, image codes, speech codes, without spare rows in between."""
    image_start = text_size + 64
    speech_start = image_start + image_codes
    return Vocabulary(
        name="embedded",
        size=speech_start + speech_codes,
        text=Range(start=0, stop=text_size),
        image=Range(start=image_start, stop=speech_start),
        speech=Range(start=speech_start, stop=speech_start + speech_codes),
        special=MappingProxyType({name: text_size + index for index, name in enumerate(_CONTROL)}),
    )


PUBLISHED = published()
EMBEDDED = embedded(text_size=1024, image_codes=1024, speech_codes=1024)

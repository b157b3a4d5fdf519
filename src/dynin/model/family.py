"""The published families, and which row of their tables means what: told by config, text tokenizer and rows, compared.

Enters: a config, the number of rows, the lengths of a text tokenizer, and what the user says. Leaves: a `Family` and a
`Vocabulary`, or an error that names what disagrees. Does not know files, shapes or networks.

    family     model_type              rows      layout
    dynin      dynin_omni              138,752   text, 8,192 image codes, 4,096 speech codes
    mmada      mmada                   134,656   text, 8,192 image codes
    llada      llada                   126,464   text

    dynin_vocabulary in the config      the whole layout, as this project stores it; one that the code knows
    text_len in the config              where image codes begin, as trainings write it
    neither, as in published configs    the length of the text tokenizer, if it is one of the known ones

Nothing is guessed: where they disagree, the user says where image codes begin, or moves the rows.

Source:
    LLaDA-8B-Instruct, MMaDA-8B-MixCoT and Dynin-Omni configurations and checkpoints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dynin import vocabulary
from dynin.config import suggest
from dynin.errors import CheckpointError, VocabularyError
from dynin.vocabulary import Vocabulary

LAYOUT_KEY = "dynin_vocabulary"
"""Where this project stores the layout of ids in a published config; other engines pass it over."""
TEXT_LENGTHS = (126_349, 126_372, 126_464)
"""How many ids lie below the first image code: the LLaDA tokenizer's, with 23 names appended, padded."""
_SPECIAL_KEYS = {"mask_token_id": "mask", "eos_token_id": "eos"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """One kind of published model."""

    name: str
    """Of its vocabulary and its task table."""
    model_types: tuple[str, ...]
    num_rows: int
    image_codes: int
    speech_codes: int

    def layout(self, text_len: int = TEXT_LENGTHS[0], num_rows: int | None = None) -> Vocabulary:
        """Its layout of ids; VocabularyError where codes meet special ids or leave the rows.

        Args:
            text_len: Number of ids below the first image code.
            num_rows: Of the tables; None takes the published number.
        """
        return vocabulary.published(
            text_len,
            name=self.name,
            size=num_rows or self.num_rows,
            image_codes=self.image_codes,
            speech_codes=self.speech_codes,
        )


_DYNIN = Family(
    name="published", model_types=("dynin_omni", "dynin"), num_rows=138_752, image_codes=8192, speech_codes=4096
)
_MMADA = Family(name="mmada", model_types=("mmada",), num_rows=134_656, image_codes=8192, speech_codes=0)
_LLADA = Family(name="llada", model_types=("llada",), num_rows=126_464, image_codes=0, speech_codes=0)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in (_DYNIN, _MMADA, _LLADA)})


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLengths:
    """What is counted of a text tokenizer."""

    num_ids: int
    """One more than its largest id, appended names included."""
    num_pieces: int
    """One more than the largest id that text can become."""


def family_of(values: Mapping[str, object], place: Path) -> Family:
    """The family that a config belongs to; CheckpointError for any other."""
    model_type = values.get("model_type")
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES.values() for name in family.model_types]
    raise CheckpointError(f"{place}: model_type is {model_type!r}{suggest(str(model_type), known)}")


def family_of_layout(layout: Vocabulary) -> Family:
    """The family as which a model with such a layout is written; layouts of no family are written as Dynin-Omni's."""
    return FAMILIES.get(layout.name, _DYNIN)


def require_rows(family: Family, num_rows: int, place: Path) -> None:
    """CheckpointError if tables have too few rows for a family, or exactly those of another one."""
    others = [other for other in FAMILIES.values() if other.num_rows == num_rows and other is not family]
    if num_rows < family.num_rows or others:
        meant = f", as {others[0].model_types[0]} models have" if others else ""
        raise CheckpointError(
            f"{place}: the tables have {num_rows:,} rows{meant}, a {family.model_types[0]} model needs "
            f"{family.num_rows:,}; are config and weights of one model?"
        )


def first_code(layout: Vocabulary) -> int:
    """Where the codes of media begin."""
    return min(layout.image.start, layout.speech.start)


def stored_layout(values: Mapping[str, object], place: Path) -> Vocabulary | None:
    """The layout that a config stores, None where it stores none.

    Raises:
        CheckpointError: If it is damaged, none that this code knows, or of another family than the config.
    """
    stored = values.get(LAYOUT_KEY)
    if stored is None:
        return None
    if not isinstance(stored, dict):
        raise CheckpointError(f"{place}: {LAYOUT_KEY} is no layout of ids but {stored!r}; fetch the model again")
    try:
        layout = Vocabulary.from_dict(stored)
    except VocabularyError as error:
        raise CheckpointError(f"{place}: {LAYOUT_KEY} is no layout of ids ({error}); fetch the model again") from error
    require_known(layout, place)
    if family_of_layout(layout) is not family_of(values, place):
        raise CheckpointError(
            f"{place}: model_type is {values['model_type']!r}, but {LAYOUT_KEY} is of a {layout.name} model; fetch the "
            "model again"
        )
    return layout


def require_known(layout: Vocabulary, place: Path) -> None:
    """CheckpointError unless every id of a stored layout, specials included, is where the code of its name puts it."""
    try:
        sizes = {"image_codes": len(layout.image), "speech_codes": len(layout.speech)}
        if layout.name == "embedded":
            expected = vocabulary.embedded(text_size=len(layout.text), **sizes)
        elif layout.name in FAMILIES:
            expected = vocabulary.published(first_code(layout), name=layout.name, size=layout.size, **sizes)
        else:
            raise VocabularyError(f"its name is {layout.name!r}{suggest(layout.name, ['embedded', *FAMILIES])}")
        expected.require_equal(layout)
    except (TypeError, ValueError) as error:  # of ranges that end before they begin, or at no whole number
        raise CheckpointError(
            f"{place}: the stored vocabulary is no {layout.name} layout ({error}); fetch the model again"
        ) from error


def require_keys(values: Mapping[str, object], place: Path) -> None:
    """CheckpointError if a key of a config contradicts the special ids, the number of image codes or the layout."""
    layout = stored_layout(values, place) or family_of(values, place).layout()
    expected: dict[str, object] = {key: layout[name] for key, name in _SPECIAL_KEYS.items()}
    if len(layout.image):
        expected["codebook_size"] = len(layout.image)
    if LAYOUT_KEY in values:
        expected["text_len"] = first_code(layout)
    for key, value in expected.items():
        if values.get(key) not in (value, None):
            raise CheckpointError(
                f"{place}: {key} is {values[key]!r}, expected {value}; fetch the config that belongs to the weights"
            )


def choose_layout(
    values: Mapping[str, object], num_rows: int, text: TextLengths, place: Path, text_len: int | None = None
) -> Vocabulary:
    """The layout of a model's ids: as asked for, as its config tells, or the known one of its tokenizer.

    Args:
        num_rows: Of the tables.
        text: Of the text tokenizer.
        place: The config, for messages.
        text_len: Number of ids below the first image code, where the caller knows better.

    Raises:
        CheckpointError: If config, tokenizer and rows do not agree.
    """
    layout = stored_layout(values, place)
    if layout is None:
        told = _told(values, place) if text_len is None else text_len
        if told is None and text.num_ids not in TEXT_LENGTHS:
            known = ", ".join(f"{length:,}" for length in TEXT_LENGTHS)
            raise _wrong_length(
                place, text, f"one of {known}", ", or say where image codes begin: text_len in a TOML file"
            )
        length = text.num_ids if told is None else told
        try:
            layout = family_of(values, place).layout(length, num_rows)
        except VocabularyError as error:
            raise CheckpointError(f"{place}: with {length:,} text ids the layout does not fit ({error})") from error
    elif text_len not in (None, first_code(layout)):
        raise CheckpointError(
            f"{place}: media codes begin at {first_code(layout):,}, but text_len is {text_len:,}; leave text_len out, "
            "or move the rows with `dynin convert MODEL FOLDER --text-len N`"
        )
    if layout.size != num_rows:
        raise CheckpointError(
            f"{place}: {LAYOUT_KEY} has {layout.size:,} rows, the weights have {num_rows:,}; fetch both again"
        )
    _require_text(layout, text, place, is_asked_for=text_len is not None)
    return layout


def _told(values: Mapping[str, object], place: Path) -> int | None:
    """Where the config says that image codes begin."""
    told = values.get("text_len")
    if told is not None and (isinstance(told, bool) or not isinstance(told, int)):
        raise CheckpointError(f"{place}: text_len is {told!r}, expected a whole number")
    return told


def _require_text(layout: Vocabulary, text: TextLengths, place: Path, *, is_asked_for: bool) -> None:
    """Compare a text tokenizer with the ids that a layout leaves for it.

    Names that a tokenizer appends never come out of text, so a user who says where image codes begin may have more of
    them than there is room for; pieces of text may never reach further than the range of text.
    """
    start, room = first_code(layout), len(layout.text)
    if text.num_pieces > room:
        raise _wrong_length(place, text, f"at most {room:,} pieces of text, not {text.num_pieces:,}")
    if layout.name == "embedded" and text.num_pieces != room:
        raise _wrong_length(place, text, f"{room:,}")
    if layout.name != "embedded" and text.num_ids < TEXT_LENGTHS[0]:
        raise _wrong_length(place, text, f"at least {TEXT_LENGTHS[0]:,}, control ids included")
    if text.num_ids > start and not is_asked_for:
        raise _wrong_length(place, text, f"at most {start:,}, since media codes begin there by {place.name}")


def _wrong_length(place: Path, text: TextLengths, expected: str, otherwise: str = "") -> CheckpointError:
    return CheckpointError(
        f"{place.parent}: the text tokenizer has {text.num_ids:,} ids, expected {expected}; use the tokenizer that "
        f"belongs to the model{otherwise}"
    )

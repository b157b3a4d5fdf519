"""Text to ids of the text range and back, by byte-level BPE.

Enters: text. Leaves: ids from 0 to `size - 1`. Any whole text can be encoded, since every byte is in the alphabet, and
no text can become a control id, since control ids are not in this tokenizer at all.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from dynin.errors import CheckpointError, RequestError

_NOTHING: Mapping[str, int] = MappingProxyType({})


class ByteLevelText:
    """A `tokenizers.Tokenizer` without special tokens: the embedded model's, or a published one."""

    def __init__(self, inner: tokenizers.Tokenizer, source: str | None = None, added: Mapping[str, int] = _NOTHING):
        """Take a tokenizer of the library.

        Args:
            source: Its file's content, where there is one.
            added: Names that the file adds to the vocabulary, by id; the inner tokenizer does not know them.
        """
        self._inner = inner
        self._inner.encode_special_tokens = True
        self._source = source
        self.added = added
        self.size: int = max((at for piece, at in inner.get_vocab().items() if piece not in added), default=-1) + 1

    @classmethod
    def train(cls, texts: Iterable[str], *, size: int) -> "ByteLevelText":
        """Learn the merges from texts; digits stay single tokens, so that numbers are read digit by digit."""
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        )
        inner.train_from_iterator(texts, trainer)
        return cls(inner)

    @classmethod
    def load(cls, path: Path) -> "ByteLevelText":
        """Read a `tokenizer.json`; CheckpointError if it is missing or no tokenizer."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise CheckpointError(f"cannot read the text tokenizer {path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is not a tokenizer file; fetch the checkpoint again") from error

    @classmethod
    def from_json(cls, text: str, name: str = "tokenizer.json") -> "ByteLevelText":
        """A tokenizer from its file's content.

        Names that the file adds to its vocabulary are taken out, so that a control id comes from the layout of a row
        and never from text.

        Raises:
            CheckpointError: If it is no tokenizer.
        """
        try:
            values = json.loads(text)
            added = {str(entry["content"]): int(entry["id"]) for entry in values.get("added_tokens") or []}
            if added:
                values |= {"added_tokens": [], "post_processor": None}
            inner = tokenizers.Tokenizer.from_str(json.dumps(values) if added else text)
        except BaseException as error:  # the library raises bare Exception for malformed files, or panics
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise CheckpointError(f"{name} is not a tokenizer file; fetch the checkpoint again") from error
        return cls(inner, text, added)

    def to_json(self) -> str:
        """The content of `tokenizer.json`, as it was read."""
        return self._inner.to_str() if self._source is None else self._source

    def encode(self, text: str) -> list[int]:
        """Text to ids.

        Raises:
            RequestError: If it holds half a character, as which bytes outside UTF-8 arrive from a command line.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RequestError(
                f"the text holds half a character at place {error.start + 1}, expected whole ones; write it in UTF-8"
            ) from error
        return self._inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        """Ids to text."""
        return self._inner.decode(ids, skip_special_tokens=False)

    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

"""Pre-tokenized speech: sentences, voices and codes, read from one file and found by what they tell.

Enters: an npz file with `text`, `voice`, `codes` (all utterances end to end) and `offsets`. Leaves: codes by index, and
indices drawn by chance, as often as the spoken domain says such sentences. Does not know sounds, networks or ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt16
from torch import Tensor

from dynin.data.emoji_world.sentence_form import weights_of
from dynin.data.retelling import answer_of, kind_of
from dynin.errors import MediaError, RequestError

TARGET_VOICE = "slt"
"""The voice of everything the model says."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Utterances:
    """A shard of spoken sentences as codes."""

    texts: Sequence[str]
    voices: Sequence[str]
    all_codes: UInt16[np.ndarray, " N"]
    offsets: Int[np.ndarray, " U1"]
    fingerprint: str = ""
    """Of the tokenizer that made the codes; empty where it is not known."""
    by_kind: Mapping[str, Int[np.ndarray, " K"]] = field(init=False)
    """Indices of all utterances ("") and of those that tell a picture, a video or a sum."""
    target_by_kind: Mapping[str, Int[np.ndarray, " K"]] = field(init=False)
    """The same, of the target voice alone."""
    target_by_text: Mapping[str, int] = field(init=False)
    weights: Float[np.ndarray, " U"] = field(init=False)
    """How often each is drawn: the forms of sentences have the shares that they have in the domain."""

    def __post_init__(self) -> None:
        """Sort the utterances by what they tell."""
        is_target = np.array([voice == TARGET_VOICE for voice in self.voices])
        by_text = {text: index for index, text in enumerate(self.texts) if is_target[index]}
        object.__setattr__(self, "target_by_text", by_text)
        object.__setattr__(self, "weights", weights_of(self.texts))
        kinds = np.array([kind_of(text) for text in self.texts])
        groups = {
            "": np.arange(len(kinds)),
            "picture": np.flatnonzero(np.isin(kinds, ("picture", "canonical picture"))),
            "canonical picture": np.flatnonzero(kinds == "canonical picture"),
            "video": np.flatnonzero(kinds == "video"),
            "sum": np.flatnonzero(kinds == "sum"),
        }
        object.__setattr__(self, "by_kind", groups)
        targets = {kind: indices[is_target[indices]] for kind, indices in groups.items()}
        object.__setattr__(self, "target_by_kind", targets)

    @property
    def has_answered_sum(self) -> bool:
        """Whether some spoken sum's answer is among the utterances, in the target voice."""
        return any(self.find_target(answer_of(self.texts[index])) is not None for index in self.by_kind["sum"])

    @classmethod
    def read(cls, path: Path) -> "Utterances":
        """Read a shard; MediaError if the file is missing or no shard."""
        try:
            with np.load(path, allow_pickle=False) as parts:
                return cls(
                    texts=parts["text"].tolist(),
                    voices=parts["voice"].tolist(),
                    all_codes=parts["codes"].astype(np.uint16),
                    offsets=parts["offsets"],
                    fingerprint=str(parts["fingerprint"]) if "fingerprint" in parts else "",
                )
        except (OSError, KeyError, ValueError) as error:
            raise MediaError(f"{path} is no shard of spoken sentences; make one with `dynin data speech`") from error

    def codes(self, index: int) -> Int[Tensor, " N"]:
        """The codes of one utterance."""
        return torch.from_numpy(self.all_codes[self.offsets[index] : self.offsets[index + 1]].astype(np.int64))

    def draw(self, generator: np.random.Generator, kind: str = "") -> int:
        """Any utterance of a kind, in any voice."""
        return self._draw(self.by_kind[kind], generator, kind)

    def draw_target(self, generator: np.random.Generator, kind: str = "") -> int:
        """Any utterance of a kind in the target voice."""
        return self._draw(self.target_by_kind[kind], generator, kind)

    def find_target(self, text: str) -> int | None:
        """The utterance in which the target voice says exactly this, if there is one."""
        return self.target_by_text.get(text)

    def _draw(self, indices: Int[np.ndarray, " K"], generator: np.random.Generator, kind: str) -> int:
        if not len(indices):
            raise RequestError(f"the shard has no utterance of kind {kind!r}; make a larger one")
        so_far = self.weights[indices].cumsum()
        place = so_far.searchsorted(generator.random() * so_far[-1], side="right")
        return int(indices[min(int(place), len(indices) - 1)])

"""Three ways to decode each modality: exact, balanced, fast; and which one a request gets that names none.

Enters: nothing. Leaves: tables of decoding policies by the vocabulary's name. Does not know networks. What each preset
is worth on the embedded model is measured by benchmarks/quality.py and told in docs/decoding.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from dynin.config import suggest
from dynin.decoding.parallel import Apart, EntropyBound, Threshold
from dynin.decoding.policy import DecodingPolicy
from dynin.decoding.refresh import Refresh
from dynin.errors import RequestError
from dynin.pipeline.policies import POLICIES
from dynin.types import Modality

PRESET_NAMES = ("exact", "balanced", "fast")


@dataclass(frozen=True, kw_only=True, slots=True)
class Presets:
    """The presets of one layout besides "exact", which is its table of policies."""

    tables: Mapping[str, Mapping[str, DecodingPolicy]]
    """By preset, then by modality, or by task and modality where a task has its own."""
    defaults: Mapping[str, str]
    """The preset of a request that names none, by modality, or by task and modality; exact where nothing is said."""

    def default(self, task: str, modality: Modality) -> str:
        """The preset for a target where none is named."""
        return self.defaults.get(f"{task}.{modality}") or self.defaults.get(modality, "exact")

    def policy(self, preset: str, task: str, modality: Modality) -> DecodingPolicy | None:
        """How a preset decodes a target; None where that is the exact way.

        Raises:
            RequestError: If there is no such preset.
        """
        if preset == "exact":
            return None
        if preset not in self.tables:
            known = ("exact", *self.tables)
            raise RequestError(f"this model has no preset {preset!r}{suggest(preset, known)}")
        table = self.tables[preset]
        return table.get(f"{task}.{modality}") or table.get(modality)


NONE = Presets(tables=MappingProxyType({}), defaults=MappingProxyType({}))

_EXACT = POLICIES["embedded"]
_TEXT, _IMAGE, _VIDEO, _SPEECH = (_EXACT[modality] for modality in Modality)
# Pictures and videos: guidance rests in every other pass, the one that computes only what is hidden or new, so that
# full passes see both branches. Leaving guidance off early makes the network less sure and takes more passes. Hiding
# unsure codes of a video again would use up the passes that the rule saves. Speech: no neighbours in one pass,
# which takes fewer columns than a bound on entropies for a score that is the same within its noise.
_BALANCED: Mapping[str, DecodingPolicy] = {
    Modality.TEXT: replace(_TEXT, commit=EntropyBound(bound=0.05), early_stop=True),
    Modality.IMAGE: replace(_IMAGE, commit=EntropyBound(bound=0.02)),
    Modality.VIDEO: replace(_VIDEO, commit=EntropyBound(bound=0.02), remask=None),
    Modality.SPEECH: replace(_SPEECH, commit=EntropyBound(bound=0.5), early_stop=True),
}
_FAST: Mapping[str, DecodingPolicy] = {
    Modality.TEXT: replace(_TEXT, commit=Threshold(bar=0.9), early_stop=True, refresh=Refresh(per_block=True)),
    Modality.IMAGE: replace(
        _IMAGE, commit=EntropyBound(bound=0.002), guidance_every=2, refresh=Refresh(every=2), sampling="inverse"
    ),
    Modality.VIDEO: replace(
        _VIDEO,
        commit=EntropyBound(bound=0.02),
        remask=None,
        guidance_every=2,
        refresh=Refresh(every=2),
        sampling="inverse",
    ),
    Modality.SPEECH: replace(
        _SPEECH,
        commit=Apart(rule=Threshold(bar=0.2), gap=2),
        early_stop=True,
        refresh=Refresh(per_block=True),
        sampling="inverse",
    ),
}

PRESETS: Mapping[str, Presets] = MappingProxyType(
    {
        "embedded": Presets(
            tables=MappingProxyType({"balanced": MappingProxyType(_BALANCED), "fast": MappingProxyType(_FAST)}),
            defaults=MappingProxyType(
                {target: "fast" for target in ("i2t.text", "v2t.text", "s2t.text", "t2t.text", "t2i.image")}
            ),
        ),
        **{name: NONE for name in POLICIES if name != "embedded"},
    }
)
"""By the vocabulary's name. The published layouts have none: nothing about their quality was measured."""

"""How each modality is decoded by default, for models of each layout.

Enters: nothing. Leaves: one table of decoding policies, and the policy of a request. Does not know tasks or networks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from dynin.decoding.policy import DecodingPolicy, published_image
from dynin.decoding.remask import LowConfidenceRemask
from dynin.errors import RequestError
from dynin.sequence.layout import Span
from dynin.types import Modality

# Pictures and videos choose places by the entropy of what could be there, never by how sure the drawn code is:
# background is the surest code wherever the model does not know yet where things go, and would be committed everywhere.
# Videos hide unsure codes once more, within the same calls: docs/decoding.md says what that is worth.
_EMBEDDED: dict[str, DecodingPolicy] = {
    Modality.TEXT: DecodingPolicy(num_steps=160, block_len=16, max_len=160),
    Modality.IMAGE: DecodingPolicy(num_steps=16, score="entropy", temperature=0.3, guidance_scale=0.7),
    Modality.VIDEO: DecodingPolicy(
        num_steps=32, score="entropy", temperature=0.3, guidance_scale=0.7, remask=LowConfidenceRemask()
    ),
    Modality.SPEECH: DecodingPolicy(num_steps=192, block_len=32, max_len=256, temperature=0.5),
}
# The settings of the published demonstrations. Steps that would reveal nothing are left out: the transcripts' 256 steps
# of two places each are 128.
_PUBLISHED: dict[str, DecodingPolicy] = {
    Modality.TEXT: DecodingPolicy(num_steps=256, block_len=128, max_len=1024, temperature=1.0),
    Modality.IMAGE: published_image(),
    Modality.SPEECH: DecodingPolicy(num_steps=383, block_len=128, temperature=1.0, guidance_scale=2.5),
    "i2t.text": DecodingPolicy(num_steps=512, block_len=1024),
    "v2t.text": DecodingPolicy(num_steps=128, block_len=128),
    "s2t.text": DecodingPolicy(num_steps=128, block_len=2),
    "i2i.image": published_image(num_steps=64),
    "ti2ti.image": published_image(num_steps=64),
    "ti2ti.text": DecodingPolicy(num_steps=129, block_len=129),
    "s2s.speech": DecodingPolicy(num_steps=512, block_len=128, temperature=1.0),
    "v2s.speech": DecodingPolicy(num_steps=255, block_len=128, temperature=1.0),
}
_LLADA: dict[str, DecodingPolicy] = {Modality.TEXT: DecodingPolicy(num_steps=512, block_len=32, max_len=1024)}

POLICIES: Mapping[str, Mapping[str, DecodingPolicy]] = MappingProxyType(
    {
        "embedded": MappingProxyType(_EMBEDDED),
        "published": MappingProxyType(_PUBLISHED),
        "mmada": MappingProxyType(_PUBLISHED),
        "llada": MappingProxyType(_LLADA),
    }
)
"""By the vocabulary's name, then by modality, or by task and modality where a task has its own."""


def policy_of(policies: Mapping[str, DecodingPolicy], task: str, modality: Modality) -> DecodingPolicy:
    """How a target of a task is decoded."""
    return policies.get(f"{task}.{modality}") or policies[modality]


def adjust(
    policy: DecodingPolicy, *, steps: int | None = None, guidance: float | None = None, growth: float = 1.0
) -> DecodingPolicy:
    """A policy with what a request overrides.

    Args:
        steps: Denoiser calls for a picture or a video, or for each block of text or speech.
        guidance: Weight of classifier-free guidance.
        growth: How many times as long as usual the side of a picture is; without `steps` it takes as many times the
            calls, at least one.
    """
    if steps is not None:
        num_blocks = (policy.max_len or 1) // (policy.block_len or 1) if policy.max_len else 1
        policy = replace(policy, num_steps=steps * num_blocks)
    elif growth != 1:
        policy = replace(policy, num_steps=max(1, round(policy.num_steps * growth)))
    if guidance is None:
        return policy
    return replace(policy, guidance_scale=guidance, guidance_every=policy.guidance_every if guidance > 0 else 1)


def require_steps(steps: int, policies: Mapping[Modality, DecodingPolicy], spans: Sequence[Span]) -> None:
    """RequestError for more steps than places that are decoded together, since every step reveals one."""
    targets = (span for span in spans if span.is_target)
    most = max(policies[span.modality].block_len or span.stop - span.start for span in targets)
    if steps > most:
        raise RequestError(
            f"steps is {steps}, but at most {most} places are decoded together and every step reveals at least one; "
            f"give 1 to {most}"
        )


def for_redo(policy: DecodingPolicy) -> DecodingPolicy:
    """The policy for hidden places inside a canvas of fixed length: all of them in parallel."""
    num_steps = policy.block_steps(policy.max_len or 1)
    return replace(policy, num_steps=num_steps, block_len=None, max_len=None, ahead=None)


def grid_of(modality: Modality, num_places: int, num_frames: int) -> tuple[int, ...] | None:
    """The grid in which the codes of a picture (Y, X) or a video (T, Y, X) lie, both square; None for any other."""
    frames = num_frames if modality == Modality.VIDEO else 1
    side = math.isqrt(num_places // frames)
    if modality not in (Modality.IMAGE, Modality.VIDEO) or frames * side * side != num_places:
        return None
    return (frames, side, side) if modality == Modality.VIDEO else (side, side)


def limit(policy: DecodingPolicy, num_places: int) -> DecodingPolicy:
    """A policy whose canvas grows to at most so many places, in whole blocks; as it is where nothing grows."""
    if policy.max_len is None or policy.block_len is None or policy.max_len <= num_places:
        return policy
    num_blocks = num_places // policy.block_len
    steps = policy.block_steps(policy.max_len)
    return replace(policy, max_len=num_blocks * policy.block_len, num_steps=steps * num_blocks)

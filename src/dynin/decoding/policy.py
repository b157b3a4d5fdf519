"""How one segment is decoded: steps, blocks, temperature, guidance, and the rules that rate, reveal and hide.

Enters: numbers and names. Leaves: checked, frozen policies, and the published ones by name of their sampler.
Does not know ids or vocabularies.
"""

import math
from dataclasses import dataclass

from dynin.decoding.order import ORDER_NAMES
from dynin.decoding.parallel import CommitRule
from dynin.decoding.refresh import Refresh
from dynin.decoding.remask import RemaskRule
from dynin.decoding.score import SCORE_NAMES
from dynin.diffusion.schedule import require_schedule
from dynin.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ahead:
    """The blocks behind the one that is decoded are proposed too, and what is sure enough is revealed before its turn.

    Every one costs its places in each pass; on hardware where passes are bound by reading weights that is next to
    nothing.

    Source:
        d3LLM's multi-block decoding and D2F, arXiv:2508.09192, here without training for it.
    """

    num_blocks: int = 1
    bar: float = 0.95
    """Probability that a proposal there must reach."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.num_blocks < 1:
            raise ConfigError(f"num_blocks is {self.num_blocks}; look at least 1 block ahead, or leave `ahead` out")
        if not 0.0 < self.bar <= 1.0:
            raise ConfigError(f"bar is {self.bar}; expected a probability in (0, 1]")


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodingPolicy:
    """Everything about a decoding that does not depend on the vocabulary."""

    num_steps: int
    """Denoiser calls for the whole segment (for `max_len` places where the canvas grows), shared equally by its
    blocks. A block never takes more steps than it has hidden places, nor fewer than one."""
    block_len: int | None = None
    """Places decoded together, from left to right; None decodes the whole segment in parallel."""
    max_len: int | None = None
    """Let the segment grow by blocks up to so many places until a stop id appears; None keeps the canvas as given."""
    temperature: float = 0.0
    """Of the choice among ids; 0 takes the best."""
    sampling: str = "gumbel"
    """How ids are drawn above temperature 0: "gumbel" takes the largest of logits plus noise, as published, and draws a
    number for every id; "inverse" draws one for every place and finds it in the sums of probabilities. Ids come out as
    often either way."""
    guidance_scale: float = 0.0
    """Weight w of classifier-free guidance; 0 makes no unconditional pass."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Guidance acts while the share of a block's steps already done lies in [first, second)."""
    guidance_every: int = 1
    """Without condition the network is asked at every so many steps of a block; in between, guidance takes what it said
    last."""
    guidance_omits: bool = False
    """Leave out of the sequences without condition what guidance empties, instead of padding in its place: shorter
    sequences, packed behind the others, but another thing than a network saw that was trained on such padding."""
    score: str = "confidence"
    """How proposals are rated: "confidence", "margin", "entropy" or "random"."""
    schedule: str = "uniform"
    """How many places are revealed per step: "uniform", or a mask-ratio schedule of `diffusion.schedule`."""
    order: str | None = None
    """"halton" reveals the places of a grid in that order, as many as planned, whatever their score; None: by score."""
    threshold: float | None = None
    """Reveal, beyond the step's quota, every proposal whose probability reaches this; saves steps.
    The same as `commit=Threshold(bar=...)`."""
    commit: CommitRule | None = None
    """Reveals, beyond the step's quota, what it trusts together; None reveals what is planned."""
    ahead: Ahead | None = None
    """Looks into the next blocks; None decodes one at a time."""
    refresh: Refresh | None = None
    """When a network that remembers keys and values computes everything anew; None: at every pass, which is exact."""
    noise_temperature: float = 0.0
    """Gumbel noise on the logarithm of the score when choosing what to reveal, annealed over the steps."""
    anneal: str = "linear"
    """"linear": noise falls as 1 - progress; "compound": by that factor again at each step."""
    defer_stops: bool = False
    """Reveal proposals of a stop id after all others of the block, so that an answer's length is decided last."""
    early_stop: bool = False
    """Fill what follows a stop id with it as soon as that id is revealed, not only when all before it is, so that
    nothing is asked any more of places that would not be heard or read."""
    remask: RemaskRule | None = None
    """Hides committed places of the current block again; None keeps what is committed."""
    compat: str = "none"
    """"none", or "published", which imitates the reference block sampler: places ranked in float64, the mask id may be
    predicted, and places it leaves hidden compete with later blocks."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.schedule != "uniform":
            require_schedule(self.schedule)
        if self.score not in SCORE_NAMES:
            raise ConfigError(f"unknown score {self.score!r}; expected one of {', '.join(SCORE_NAMES)}")
        if self.sampling not in ("gumbel", "inverse"):
            raise ConfigError(f"unknown sampling {self.sampling!r}; expected gumbel or inverse")
        if self.anneal not in ("linear", "compound"):
            raise ConfigError(f"unknown annealing {self.anneal!r}; expected linear or compound")
        if self.compat not in ("none", "published"):
            raise ConfigError(f"unknown compatibility mode {self.compat!r}; expected none or published")
        for name, value in (("num_steps", self.num_steps), ("block_len", self.block_len), ("max_len", self.max_len)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        for name, number in (
            ("temperature", self.temperature),
            ("guidance_scale", self.guidance_scale),
            ("noise_temperature", self.noise_temperature),
        ):
            if not (math.isfinite(number) and number >= 0):
                raise ConfigError(f"{name} is {number}; it must be a finite number of at least 0")
        if self.max_len is not None and (self.block_len is None or self.max_len % self.block_len):
            raise ConfigError(
                f"max_len is {self.max_len} and block_len {self.block_len}; a canvas grows by whole blocks, so set "
                "max_len to a multiple of block_len"
            )
        if self.max_len is not None and self.num_steps > self.max_len:
            raise ConfigError(
                f"num_steps is {self.num_steps}, but a canvas of at most max_len {self.max_len} places takes as many "
                "steps at most"
            )
        first, second = self.guidance_interval
        if not 0.0 <= first < second <= 1.0:
            raise ConfigError(f"guidance_interval is {self.guidance_interval}; expected 0 <= first < second <= 1")
        if self.threshold is not None and not 0.0 < self.threshold <= 1.0:
            raise ConfigError(f"threshold is {self.threshold}; it must be in (0, 1]")
        self._check_together()

    def _check_together(self) -> None:
        """Refuse fields that contradict each other."""
        extras = {
            "remask": self.remask,
            "threshold": self.threshold,
            "max_len": self.max_len,
            "commit": self.commit,
            "ahead": self.ahead,
            "order": self.order,
            "early_stop": self.early_stop or None,
        }
        if self.compat == "published" and any(value is not None for value in extras.values()):
            given = ", ".join(f"{name} {value}" for name, value in extras.items() if value is not None)
            raise ConfigError(f"compat 'published' knows no {given}; leave it unset")
        if self.threshold is not None and self.commit is not None:
            raise ConfigError(f"threshold {self.threshold} and commit {self.commit} both say what to reveal; keep one")
        if self.order is not None and self.order not in ORDER_NAMES:
            raise ConfigError(f"unknown order {self.order!r}; expected one of {', '.join(ORDER_NAMES)}, or None")
        if self.order is not None and self.noise_temperature > 0:
            raise ConfigError(
                f"order {self.order!r} is fixed, but noise_temperature {self.noise_temperature} would shuffle it; "
                "set one of them"
            )
        if self.ahead is not None and self.block_len is None:
            raise ConfigError(f"{self.ahead} needs blocks, but block_len is None; set it, or leave `ahead` out")
        if self.guidance_every < 1:
            raise ConfigError(f"guidance_every is {self.guidance_every}; it must be at least 1")
        if self.guidance_every > 1 and self.guidance_interval[0] > 0:
            raise ConfigError(
                f"guidance_every is {self.guidance_every}, which counts from a block's first step, but "
                f"guidance_interval {self.guidance_interval} begins later; set one of them"
            )
        if self.guidance_every > 1 and self.guidance_scale == 0:
            raise ConfigError(
                f"guidance_every is {self.guidance_every}, but guidance_scale is 0, which guides nothing; set one"
            )

    @property
    def is_random(self) -> bool:
        """Whether anything is drawn, so that a generator is needed."""
        return self.temperature > 0 or self.noise_temperature > 0 or self.score == "random"

    @property
    def passes(self) -> Refresh | None:
        """What is remembered from pass to pass: nothing, or nothing but packed passes where something is left out."""
        return Refresh(every=1) if self.refresh is None and self.guidance_omits else self.refresh

    @property
    def is_planned(self) -> bool:
        """Whether every step reveals as much as is planned, never more."""
        return self.threshold is None and self.commit is None

    def block_steps(self, num_places: int) -> int:
        """Steps per block of a segment that has (or may grow to) so many places."""
        if self.block_len is None:
            return self.num_steps
        num_blocks = math.ceil(max(num_places, 1) / self.block_len)
        return max(1, self.num_steps // num_blocks)


def published_text(
    *, num_new: int, num_steps: int, block_len: int, temperature: float = 0.0, guidance_scale: float = 0.0
) -> DecodingPolicy:
    """The reference's block-wise low-confidence sampler, over every row of the vocabulary.

    Raises:
        ConfigError: If blocks do not divide the new places, or steps the blocks, as the reference demands.

    Parity:
        Dynin-Omni `mmu_generate`, LLaDA `generate`. Its guidance hides the whole prompt in the unconditional row:
        pass such `uncond_ids`. Steps that would reveal nothing are skipped.
    """
    if min(num_new, num_steps, block_len) < 1 or num_new % block_len or num_steps % (num_new // block_len):
        raise ConfigError(
            f"{num_new} new places, {num_steps} steps and blocks of {block_len} do not divide; the published sampler "
            "needs 1 or more of each, num_new % block_len == 0 and num_steps % number of blocks == 0"
        )
    return DecodingPolicy(
        num_steps=num_steps,
        block_len=block_len,
        temperature=temperature,
        guidance_scale=guidance_scale,
        compat="published",
    )


def published_image(*, num_steps: int = 20, guidance_scale: float = 3.5, temperature: float = 1.0) -> DecodingPolicy:
    """The reference's MaskGIT sampler for grids of codes: codes drawn at temperature 1, reveal noise that compounds.

    Parity:
        Dynin-Omni `t2i_generate`. Ties at the cut are resolved exactly instead of revealing too many, and the
        unconditional row follows the conditional one at exactly the target columns.
    """
    return DecodingPolicy(
        num_steps=num_steps,
        guidance_scale=guidance_scale,
        temperature=1.0,
        schedule="cosine",
        noise_temperature=temperature,
        anneal="compound",
    )

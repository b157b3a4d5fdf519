"""A recipe applied to models: for every part of every tensor, which rows of which model, and the arithmetic.

Enters: sources and a recipe. Leaves: `Piece` values in the order of the stored tensors, and their description. Reads no
weights.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from dynin.errors import CheckpointError, ConfigError
from dynin.merging.methods import SPARSE, Coefficients, Method, Rescale
from dynin.merging.parts import Part, parts_of, rows_of
from dynin.merging.recipe import Recipe, Rule
from dynin.merging.source import Source
from dynin.model.convert import expected_shapes
from dynin.vocabulary import Range

Runs = tuple[Range, ...]
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part with its coefficients and its place in every model."""

    part: Part
    how: Coefficients
    runs: Runs
    """Its rows in the result."""
    source_runs: tuple[Runs | None, ...]
    """Its rows in each model, the base first; None where a model has none."""
    taken: int | None
    """The one model whose numbers are copied; None where they are computed."""

    @property
    def num_rows(self) -> int:
        """Rows of the table, or of the tensor."""
        return sum(len(run) for run in self.runs)

    def to_dict(self) -> dict[str, object]:
        """What is done, as plain values."""
        how = asdict(self.how)
        rows = {"rows": [[run.start, run.stop] for run in self.runs]} if self.part.is_rows else {}
        return {"tensor": self.part.tensor, "group": self.part.group, **rows, **how, "copied_from": self.taken}


def plan(sources: Sequence[Source], donor: Source, recipe: Recipe) -> list[Piece]:
    """What is merged how, covering every number of the result once.

    Args:
        donor: The source whose rows the result has.

    Raises:
        ConfigError: If the recipe does not fit the models.
        CheckpointError: If some of several models lack rows that would be computed.
    """
    parts = list(parts_of(donor.config))
    found = coefficients(recipe, parts, donor.config.num_layers, len(sources) - 1)
    shapes = expected_shapes(donor.config)
    pieces = []
    rows = {
        group: [rows_of(source.vocabulary, group, recipe.specials_new) for source in (donor, *sources)]
        for group in {part.group for part in parts if part.is_rows}
    }
    for part, how in zip(parts, found, strict=True):
        whole = (Range(start=0, stop=shapes[part.tensor][0]),)
        runs, *theirs = rows[part.group] if part.is_rows else [whole] * (1 + len(sources))
        if not runs:
            continue
        has_rows = [_count(found_runs) == _count(runs) for found_runs in theirs]
        placed = tuple(found_runs if has else None for found_runs, has in zip(theirs, has_rows, strict=True))
        taken = _taken(part, how, sources, placed)
        pieces.append(Piece(part=part, how=how, runs=runs, source_runs=placed, taken=taken))
    return pieces


def coefficients(recipe: Recipe, parts: Sequence[Part], num_layers: int, num_others: int) -> list[Coefficients]:
    """The coefficients of every part.

    Args:
        num_others: Models beside the base.

    Raises:
        ConfigError: If a rule selects nothing, or numbers do not fit the models, the layers or the method.
    """
    settings = [_Setting.of(recipe) for _ in parts]
    for number, rule in enumerate(recipe.rules, start=1):
        _require_layers(rule, number, num_layers)
        found = [index for index, part in enumerate(parts) if rule.selects(part, num_layers)]
        if not found:
            raise ConfigError(f"rule {number} of {recipe.name!r} selects nothing; look at its names, tables and layers")
        for index in found:
            settings[index] = settings[index].ruled(rule)
    return [setting.resolve(part, num_layers, num_others) for setting, part in zip(settings, parts, strict=True)]


def by_tensor(pieces: Sequence[Piece]) -> dict[str, list[Piece]]:
    """The pieces of each tensor."""
    grouped: dict[str, list[Piece]] = {}
    for piece in pieces:
        grouped.setdefault(piece.part.tensor, []).append(piece)
    return grouped


def summary(pieces: Sequence[Piece]) -> list[tuple[Piece, int]]:
    """For every group with equal coefficients one of its pieces, and how many there are."""
    grouped: dict[tuple[str, Coefficients, int | None], list[Piece]] = {}
    for piece in pieces:
        grouped.setdefault((piece.part.group, piece.how, piece.taken), []).append(piece)
    return [(found[0], len(found)) for found in grouped.values()]


def _count(runs: Runs) -> int:
    return sum(len(run) for run in runs)


def _taken(part: Part, how: Coefficients, sources: Sequence[Source], placed: Sequence[Runs | None]) -> int | None:
    """The model that is copied, if one is: by its coefficients, or as the only one that has the rows."""
    present = [index for index, runs in enumerate(placed) if runs is not None]
    if how.taken in present:
        return how.taken
    if len(present) == len(sources):
        return None
    if len(present) == 1:
        return present[0]
    lacking = [source.given for source, runs in zip(sources, placed, strict=True) if runs is None]
    raise CheckpointError(
        f"{', '.join(lacking)} have no rows of {part.group}, several others do; give these rows a strength of 0, or "
        "merge the models that have them first"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Setting:
    """What the recipe and its rules have said of one part so far."""

    method: Method
    strength: tuple[float, ...]
    layers: tuple[int, int | None] | None
    """The blocks over which several strengths are spread; None for all."""
    weights: tuple[float, ...]
    density: tuple[float, ...]
    rescale: Rescale

    @classmethod
    def of(cls, recipe: Recipe) -> "_Setting":
        return cls(
            method=recipe.method,
            strength=recipe.strength,
            layers=None,
            weights=recipe.weights,
            density=recipe.density,
            rescale=recipe.rescale,
        )

    def ruled(self, rule: Rule) -> "_Setting":
        """With what a rule says."""
        keys = ("method", "strength", "weights", "density", "rescale")
        given = {key: getattr(rule, key) for key in keys if getattr(rule, key) is not None}
        if given.get("method", "ties") not in SPARSE:
            given["density"] = (1.0,)
        if "strength" in given:
            has_layers = rule.first_layer is not None or rule.last_layer is not None
            given["layers"] = (rule.first_layer or 0, rule.last_layer) if has_layers else None
        made: _Setting = replace(self, **given)
        return made

    def resolve(self, part: Part, num_layers: int, num_others: int) -> Coefficients:
        """With one strength, and one weight and density for each model."""
        weights = self.weights or ((1.0,) if num_others == 1 else ())
        if len(weights) != num_others:
            raise ConfigError(
                f"{len(weights)} weights for {num_others} models beside the base ({part.group}); give one for each"
            )
        density = self.density * num_others if len(self.density) == 1 else self.density
        if len(density) != num_others:
            raise ConfigError(f"{len(density)} densities for {num_others} models ({part.group}); give one, or one each")
        if self.method not in SPARSE and set(density) != {1.0}:
            raise ConfigError(f"density is set for {part.group}, but {self.method} keeps everything")
        strength = self._strength(part, num_layers)
        if self.method == "linear" and abs(sum(weights) - 1) > SUM_TOLERANCE:
            raise ConfigError(f"the weights of linear add up to {sum(weights):g} ({part.group}); expected 1")
        if self.method == "slerp" and (num_others != 1 or weights != (1.0,)):
            raise ConfigError(f"slerp goes from the base to one model ({part.group}); expected one model of weight 1")
        if self.method in ("linear", "slerp") and not 0 <= strength <= 1:
            raise ConfigError(f"the strength of {self.method} is {strength:g} ({part.group}); expected 0 to 1")
        return Coefficients(
            method=self.method, strength=strength, weights=weights, density=density, rescale=self.rescale
        )

    def _strength(self, part: Part, num_layers: int) -> float:
        """At the part's layer; the last norm stands behind the last layer."""
        if len(self.strength) == 1 or part.group == "final_norm":
            return self.strength[-1]
        if part.layer is None:
            raise ConfigError(
                f"strength has {len(self.strength)} numbers for {part.group}, which is in no layer; give it one number "
                "by a rule"
            )
        first, last = self.layers or (0, None)
        last = num_layers - 1 if last is None else last
        at = (part.layer - first) * (len(self.strength) - 1) / max(1, last - first)
        low = min(int(at), len(self.strength) - 2)
        return (low + 1 - at) * self.strength[low] + (at - low) * self.strength[low + 1]


def _require_layers(rule: Rule, number: int, num_layers: int) -> None:
    for key in ("first_layer", "last_layer"):
        layer = getattr(rule, key)
        if layer is not None and not 0 <= layer < num_layers:
            raise ConfigError(f"rule {number}: {key} is {layer}; the models have layers 0 to {num_layers - 1}")

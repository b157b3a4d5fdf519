"""What is merged how: a few coefficients for everything, and rules for parts of it. A recipe is a small TOML file.

Enters: TOML, or the name of a recipe. Leaves: `Recipe`. Does not know files of weights or the arithmetic.

    name = "modality-disentangled"
    method = "linear"               of everything that no rule names
    strength = 0.5                  or knots over the layers: [0.2, 0.8] rises from the first one to the last

    [[rules]]                       later rules win over earlier ones
    groups = ["speech", "specials_new"]
    strength = 1.0

Source:
    The default is this project's reading of a published idea whose formula and numbers are not public, see
    docs/merging.md.
"""

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dynin import config
from dynin.config import suggest
from dynin.errors import ConfigError
from dynin.merging.methods import SPARSE, Method, Rescale
from dynin.merging.parts import GROUPS, TABLE_NAMES, Part

_NUMBERS = ("strength", "weights", "density")
_LISTS = (*_NUMBERS, "groups", "tables", "specials_new")


def _require_numbers(settings: "Rule | Recipe") -> None:
    for key in _NUMBERS:
        for value in getattr(settings, key) or ():
            if not math.isfinite(value):
                raise ConfigError(f"{key} is {value}; expected a number")
    if settings.strength == ():
        raise ConfigError("strength has no number; give at least one")
    for value in settings.density or ():
        if not 0 < value <= 1:
            raise ConfigError(f"density is {value:g}; expected more than 0, and at most 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """Other coefficients for some parts. What selects is combined; what is left out stays as it was."""

    groups: tuple[str, ...] = ()
    """Names of `parts.GROUPS`; empty for all."""
    tables: tuple[str, ...] = ()
    """embed, output: rows of these tables alone."""
    names: str = ""
    """A regular expression that is found in the tensor's name, such as `attention[.](query|key)`."""
    first_layer: int | None = None
    last_layer: int | None = None
    """Blocks from the one to the other, counted from 0, both included."""
    method: Method | None = None
    strength: tuple[float, ...] | None = None
    weights: tuple[float, ...] | None = None
    density: tuple[float, ...] | None = None
    rescale: Rescale | None = None

    def __post_init__(self) -> None:
        """Check names and numbers."""
        for key, known in (("groups", GROUPS), ("tables", TABLE_NAMES)):
            for name in getattr(self, key):
                if name not in known:
                    raise ConfigError(f"a rule names {name!r} among its {key}{suggest(name, known)}")
        try:
            re.compile(self.names)
        except re.error as error:
            raise ConfigError(f"a rule's names {self.names!r} are no regular expression ({error})") from error
        if self.method is not None and self.method not in SPARSE and self.density not in (None, (1.0,)):
            raise ConfigError(f"a rule sets density, but {self.method} keeps everything; {', '.join(SPARSE)} drop")
        _require_numbers(self)

    def selects(self, part: Part, num_layers: int) -> bool:
        """Whether a part is meant."""
        first, last = self.first_layer or 0, num_layers - 1 if self.last_layer is None else self.last_layer
        has_layers = self.first_layer is not None or self.last_layer is not None
        return (
            (not self.groups or part.group in self.groups)
            and (not self.tables or part.tensor in [TABLE_NAMES[name] for name in self.tables])
            and (not self.names or re.search(self.names, part.tensor) is not None)
            and (not has_layers or (part.layer is not None and first <= part.layer <= last))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How models are merged."""

    name: str
    method: Method = "linear"
    strength: tuple[float, ...] = (0.5,)
    """How far from the base; several numbers are knots over the layers, evenly spaced, lines in between."""
    weights: tuple[float, ...] = ()
    """One for each model beside the base; a single model has 1 where none is given. Of linear, their sum is 1."""
    density: tuple[float, ...] = (1.0,)
    """Share of the differences that ties and dare keep; one for all models or one for each."""
    rescale: Rescale = "density"
    specials_new: tuple[str, ...] = ()
    """Control ids that the base has not learned; empty for those of the layout's family."""
    seed: int = 0
    """Of what DARE drops."""
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.method not in SPARSE and self.density != (1.0,):
            raise ConfigError(f"density is set, but {self.method} keeps everything; {', '.join(SPARSE)} drop")
        _require_numbers(self)


MODALITY_DISENTANGLED = Recipe(
    name="modality-disentangled",
    method="linear",
    strength=(0.5,),
    rules=(
        Rule(groups=("text", "specials", "image", "padding"), strength=(0.0,)),
        Rule(groups=("speech", "specials_new"), strength=(1.0,)),
    ),
)
"""Parameters that both models use go half the way; rows that one modality uses stay with the model that learned it."""
RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {recipe.name: recipe for recipe in (MODALITY_DISENTANGLED, Recipe(name="uniform"))}
)


def find(name_or_file: str | Path) -> Recipe:
    """A recipe by its name, or from a TOML file.

    Raises:
        ConfigError: If there is neither, or a setting is unknown or of the wrong kind.
    """
    text = str(name_or_file)
    if text in RECIPES:
        return RECIPES[text]
    if Path(text).suffix != ".toml":
        raise ConfigError(f"no recipe {text!r}{suggest(text, RECIPES)}; or give a file RECIPE.toml")
    values = config.read(Path(text))
    rules = values.get("rules", [])
    if isinstance(rules, list):
        values["rules"] = [_listed(rule) if isinstance(rule, Mapping) else rule for rule in rules]
    return config.from_dict(_listed(values), Recipe)


def read_rule(text: str) -> Rule:
    """A rule from one line of TOML, such as `groups = "mlp", strength = 0.3`; ConfigError if it is none."""
    try:
        values = tomllib.loads(f"rule = {{{text}}}")["rule"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'rule {text!r} is no TOML ({error}); write it as groups = "mlp", strength = 0.3') from error
    return config.from_dict(_listed(values), Rule, "rule.")


def changed(recipe: Recipe, rules: Iterable[Rule] = (), **values: Any) -> Recipe:
    """The recipe with other values where they are not None, and further rules; errors as in `find`."""
    given = {key: value for key, value in values.items() if value is not None}
    if "method" in given and given["method"] not in SPARSE and "density" not in given:
        given["density"] = (1.0,)
    both = {"rules": (*recipe.rules, *rules), **given}
    rest = {key: value for key, value in asdict(recipe).items() if key not in both}
    plain = {**rest, **both, "rules": [_plain(rule) for rule in both["rules"]]}
    return config.from_dict(_listed(plain), Recipe)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, what is left out left out."""
    return {**asdict(recipe), "rules": [_plain(rule) for rule in recipe.rules]}


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Single values where lists are expected become lists of one."""
    return {
        key: [value] if key in _LISTS and not isinstance(value, list | tuple) else value
        for key, value in values.items()
    }


def _plain(rule: Rule) -> dict[str, Any]:
    """What a rule sets."""
    empty = asdict(Rule())
    return {key: value for key, value in asdict(rule).items() if value != empty[key]}

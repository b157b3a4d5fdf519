"""TOML files to frozen dataclasses and back: strict, typed, with dotted paths in every error.

Enters: a TOML file and overrides such as `optimizer.learning_rate=1e-4`. Leaves: one instance of a config class. Does
not know what any setting means.
"""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dynin.errors import ConfigError

Config = TypeVar("Config")


def load(path: Path, kind: type[Config], overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file into a config class.

    A file may name another one with `extends = "other.toml"` (beside it, one level deep); its own values win.

    Args:
        overrides: `dotted.path=value`, where value is written as in TOML; bare words count as text.

    Raises:
        ConfigError: If the file cannot be read, or a key is unknown, missing or of the wrong type.
    """
    values = read(path)
    if "extends" in values:
        base = read(path.parent / str(values.pop("extends")))
        if "extends" in base:
            raise ConfigError(f"{path} extends a file that extends another; one level is allowed")
        values = _merge(base, values)
    for override in overrides:
        _override(values, override)
    return from_dict(values, kind)


def read(path: Path) -> dict[str, Any]:
    """The tables of a TOML file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}; name an existing TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def from_dict(values: Mapping[str, Any], kind: type[Config], path: str = "") -> Config:
    """A config class from nested mappings, checked key by key."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"unknown setting {path + key!r}{suggest(key, fields)}")
    hints = typing.get_type_hints(kind)
    arguments = {key: _convert(value, hints[key], path + key) for key, value in values.items()}
    for name, field in fields.items():
        is_required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if is_required and name not in arguments:
            raise ConfigError(f"setting {path + name!r} is missing; it has no default")
    return kind(**arguments)


def to_dict(config: object) -> dict[str, Any]:
    """A config class as nested plain values, for writing beside results."""
    return dataclasses.asdict(config)  # type: ignore[call-overload, no-any-return]


AT_LEAST_ZERO, AT_LEAST_ONE, SHARE = (0.0, math.inf), (1.0, math.inf), (0.0, 1.0)
"""Ranges of settings, for `require_ranges`."""


def require_ranges(config: object, ranges: Mapping[str, tuple[float, float]], path: str = "") -> None:
    """ConfigError unless each of these numbers of a config lies in its range, ends included; `math.inf` for no end.

    What is no number and what is infinite lies in none. A table of numbers is looked at one by one.

    Args:
        path: Of the config among the settings, such as "optimizer.".
    """
    for name, (least, most) in ranges.items():
        told = getattr(config, name)
        for key, value in told.items() if isinstance(told, Mapping) else [("", told)]:
            if not (math.isfinite(value) and least <= value <= most):
                expected = f"{least:g} to {most:g}" if math.isfinite(most) else f"at least {least:g}"
                raise ConfigError(
                    f"setting {path + '.'.join(filter(None, (name, key)))!r} is {value}; expected {expected}"
                )


def require_run_name(name: str) -> None:
    """ConfigError unless setting 'name' names a folder below 'output'."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(f"setting 'name' is {name!r}; expected a name of a folder below 'output'")


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of known words when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _merge(base: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        is_table = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if is_table else value
    return merged


def _override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator:
        raise ConfigError(f"override {override!r} has no '='; write dotted.path=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, key = path.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"override {override!r}: {table!r} is {values!r}, no table of settings; name it alone")
    values[key] = value


def _convert(value: object, hint: Any, path: str) -> Any:
    """The value as its annotated type, or a ConfigError with its dotted path."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"setting {path!r} is {value!r}; expected a table")
        return from_dict(value, hint, f"{path}.")
    if origin is typing.Literal:
        if value not in arguments:
            raise ConfigError(f"setting {path!r} is {value!r}{suggest(str(value), map(str, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):
        inner = next(argument for argument in arguments if argument is not type(None))
        return _convert(value, inner, path)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, arguments[0], f"{path}[{index}]") for index, item in enumerate(value))
    if origin in (dict, Mapping, typing.get_origin(Mapping[str, str])) and isinstance(value, Mapping):
        return {key: _convert(item, arguments[1], f"{path}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ConfigError(f"setting {path!r} is {value!r}; expected {getattr(hint, '__name__', hint)}")

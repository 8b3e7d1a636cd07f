"""A configuration as JSON, and what two of them differ in."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from gear.config import Config, ConfigError


def to_json(config: Config) -> str:
    """The whole configuration, one field a line; every dataclass carries its name under "kind"."""
    return json.dumps(plain(config), indent=2)


def from_json(text: str) -> Config:
    """Inverse of `to_json`. Fields may be left out and then have their defaults, so that a file by hand can be short
    and a run of an older version can be read. Raises `ConfigError` on a field that this version does not know, or a
    value of another type."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the configuration is not JSON: {error}.") from None
    return _built((Config,), value, "")


def read(file: Path) -> Config:
    """`from_json` of a file, which its errors name. Raises OSError too."""
    try:
        return from_json(file.read_text())
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be used: {error}") from None


def differences(a: Config, b: Config) -> list[str]:
    """Every field in which two configurations differ, as "stage.tau: 0.1 -> 0.5"."""

    def walk(x: Any, y: Any, where: str) -> list[str]:
        if isinstance(x, dict) and isinstance(y, dict):
            keys = list(dict.fromkeys([*x, *y]))
            return [line for k in keys for line in walk(x.get(k), y.get(k), _dotted(where, k))]
        if isinstance(x, list) and isinstance(y, list) and len(x) == len(y):
            return [line for i, (a, b) in enumerate(zip(x, y, strict=True)) for line in walk(a, b, f"{where}[{i}]")]
        return [] if x == y else [f"{where}: {x} -> {y}"]

    return walk(plain(a), plain(b), "")


def plain(value: Any) -> Any:
    """A dataclass, or what is inside one, as what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__name__, **fields}
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def from_plain(kind: Any, value: Any, where: str) -> Any:
    """Inverse of `plain` for a dataclass or a union of them. `where` names it in errors, which are `ConfigError`s."""
    return _built(typing.get_args(kind) or (kind,), value, where)


def _built(classes: tuple[type, ...], value: Any, where: str) -> Any:
    """One of the dataclasses, from its fields and its "kind"."""
    here, names = where or "the configuration", {c.__name__: c for c in classes}
    if not isinstance(value, dict):
        raise ConfigError(f"{here} must be an object with its fields; it is {value!r}.")
    if (kind := value.get("kind")) not in names:
        raise ConfigError(f"{_dotted(where, 'kind')} must be {_listed(names)}; it is {kind!r}.")
    hints = typing.get_type_hints(names[kind])
    given = {name: v for name, v in value.items() if name != "kind"}
    if unknown := sorted(given.keys() - hints.keys()):
        raise ConfigError(f"{here} has no field {unknown[0]!r}; its fields are {', '.join(hints)}.")
    return names[kind](**{name: _field(hints[name], v, _dotted(where, name)) for name, v in given.items()})


def _field(kind: Any, value: Any, where: str) -> Any:
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    nested: tuple[Any, ...] = tuple(option for option in options if dataclasses.is_dataclass(option))
    if nested and not (value is None and type(None) in options):
        return _built(nested, value, where)
    for option in options:
        origin, inside = typing.get_origin(option), typing.get_args(option)
        if type(value) is option or (origin is typing.Literal and value in inside):
            return value
        if option is float and type(value) is int:
            return float(value)
        if origin is tuple and isinstance(value, list):
            return tuple(_field(inside[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    raise ConfigError(f"{where} must be {_described(kind)}; it is {value!r}.")


def _described(kind: Any) -> str:
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    return _listed(choices) if choices else kind.__name__ if isinstance(kind, type) else str(kind)


def _listed(names: Any) -> str:
    return " or ".join(repr(name) for name in names)


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

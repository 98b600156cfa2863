"""Plans to TOML and back: every frozen dataclass is a table that names its kind and the fields that are not default.

``kind`` is the class's name in snake case. Scores, quantizers and ranges of others are written ``module:Class``; they
are looked up among the modules that the caller has imported already, and never imported for a file.
"""

import dataclasses
import json
import re
import sys
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from whit import distill, formats, mixed, penalties, quantizers, ranges, scalings, scores, steps, units
from whit.errors import PlanError, listed
from whit.plan import Plan

__all__ = ["dumps", "from_table", "load_plan", "loads", "save_plan", "to_table"]

_HOMES = (steps, formats, ranges, scores, quantizers, scalings, mixed, units, penalties, distill)


def dumps(what: Plan) -> str:
    """A plan as TOML text, ``loads(dumps(plan)) == plan``.

    >>> print(dumps(Plan(steps.Prune(amount=0.5), steps.Finetune(epochs=2))))
    [[step]]
    kind = "prune"
    amount = 0.5
    <BLANKLINE>
    [[step]]
    kind = "finetune"
    epochs = 2
    <BLANKLINE>
    """
    blocks = ["\n".join(f"{key} = {_inline(value)}" for key, value in to_table(step).items()) for step in what.steps]
    return "\n".join(f"[[step]]\n{block}\n" for block in blocks)


def loads(text: str, source: str = "the plan") -> Plan:
    """The plan that TOML text describes; errors name ``source`` and the step.

    Raises:
        PlanError: The text is not TOML, or a kind, field or value is not one that a plan has.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: integers and nesting without end
        raise PlanError(f"{source} is not TOML: {error}") from error
    tables = document.pop("step", None)
    if document:
        raise PlanError(f"{source} has {listed(document)} beside its [[step]] tables; a plan holds nothing else")
    if not isinstance(tables, list) or not tables:
        raise PlanError(f"{source} has no [[step]] table; write at least one step")
    found: list[Any] = []
    for place, table in enumerate(typing.cast(list[Any], tables), 1):
        try:
            found.append(from_table(table, steps.Step))
        except PlanError as error:
            raise PlanError(f"{source}, step {place}: {error}") from error
    return Plan(*found)


def save_plan(what: Plan, path: str | Path) -> None:
    """Write a plan to a TOML file."""
    Path(path).write_text(dumps(what), encoding="utf-8")


def load_plan(path: str | Path) -> Plan:
    """Read a plan from a TOML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PlanError(f"there is no plan file {path}; write one or give another path") from error
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not a text file, so it holds no plan") from error
    except OSError as error:
        raise PlanError(f"cannot read the plan file {path}: {error}") from error
    return loads(text, source=str(path))


def to_table(value: Any) -> dict[str, Any]:
    """A frozen dataclass as a table: its kind, and the fields whose value is not the default."""
    table: dict[str, Any] = {"kind": _kind_of(type(value))}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if item != field.default:
            table[field.name] = _plain(item)
    return table


def from_table(table: Any, expected: Any) -> Any:
    """The dataclass that a table describes; ``expected`` is its type, or a union of types."""
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
        raise PlanError(f'{table!r} is not a table with a kind, such as {{kind = "int", bits = 8}}')
    items = typing.cast(dict[str, Any], table)
    cls = _class_of(items["kind"])
    if not issubclass(cls, tuple(_classes(expected))):
        allowed = listed(kind for one in _classes(expected) for kind in _kinds_of(one))
        raise PlanError(f"kind {items['kind']!r} does not fit here; choose {allowed}")
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(items.keys() - fields - {"kind"}):
        raise PlanError(f"{items['kind']} has no {listed(unknown)}; it has {listed(sorted(fields), most=20)}")
    values = {
        name: _typed(item, hints[name], f"{items['kind']}.{name}") for name, item in items.items() if name != "kind"
    }
    needed = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory}  # both are MISSING
    if missing := sorted(needed - values.keys()):
        raise PlanError(f"{items['kind']} needs {listed(missing)}")
    return cls(**values)


def _typed(value: Any, hint: Any, where: str) -> Any:
    """``value`` as the type hint asks for it, or an error that says what was expected."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value == "none" and types.NoneType in get_args(hint):
            return None
        options = [option for option in get_args(hint) if option is not types.NoneType]
        tables = [option for option in options if dataclasses.is_dataclass(option)]
        if isinstance(value, dict) and tables:
            return from_table(value, Union[tuple(tables)])  # noqa: UP007 (a union of a list)
        return _typed(value, options[0], where)
    if origin is Literal:
        if not any(value == one and type(value) is type(one) for one in get_args(hint)):
            raise PlanError(f"{where} = {value!r}: choose one of {listed(map(str, get_args(hint)))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise PlanError(f"{where} = {value!r}: expected a list")
        return tuple(_typed(item, get_args(hint)[0], where) for item in typing.cast(list[Any], value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint in (bool, int, float, str):
        if type(value) is not hint:
            raise PlanError(f"{where} = {value!r}: expected {hint.__name__}, not {type(value).__name__}")
        return value
    return from_table(value, hint)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_table(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in typing.cast(tuple[Any, ...], value)]
    return "none" if value is None else value


def _inline(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, Mapping):
        items = typing.cast(Mapping[str, Any], value).items()
        return "{" + ", ".join(f"{key} = {_inline(item)}" for key, item in items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) for item in typing.cast(list[Any], value)) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return float.__repr__(value) if isinstance(value, float) else repr(value)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _known() -> dict[str, type]:
    exported = [getattr(home, name) for home in _HOMES for name in home.__all__]
    return {_snake(cls.__name__): cls for cls in exported if isinstance(cls, type) and dataclasses.is_dataclass(cls)}


def _kinds_of(cls: type) -> list[str]:
    """The kinds that are of a class: its own, or those of its subclasses."""
    known = {kind: one for kind, one in _known().items() if issubclass(one, cls)}
    return [_snake(cls.__name__)] if cls in known.values() else sorted(known)


def _kind_of(cls: type) -> str:
    kind = _snake(cls.__name__)
    return kind if _known().get(kind) is cls else f"{cls.__module__}:{cls.__qualname__}"


def _class_of(kind: str) -> type:
    known = _known()
    if kind in known:
        return known[kind]
    module, colon, name = kind.partition(":")
    # Looked up without getattr, which would let a lazy module import what the file names.
    found = vars(sys.modules[module]).get(name) if colon and module in sys.modules else None
    if isinstance(found, type) and dataclasses.is_dataclass(found):
        return found
    if colon:
        raise PlanError(f"kind {kind!r} names no dataclass of an imported module; import {module} first")
    raise PlanError(f"there is no kind {kind!r}; whit knows {listed(sorted(known), most=40)}")


def _classes(expected: Any) -> list[type]:
    if get_origin(expected) in (Union, types.UnionType):
        return [option for option in get_args(expected) if isinstance(option, type)]
    return [expected]

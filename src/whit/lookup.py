"""What ``package.module:factory`` names: imported and called."""

import importlib
import inspect
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from whit.errors import WhitError, listed

__all__ = ["made_by"]


def made_by(where: str, what: str, error: type[WhitError]) -> Any:
    """What a callable without required arguments returns.

    Args:
        where: Its name, ``package.module:factory``.
        what: What it should return, for messages: ``"the data"``.
        error: Raised with a message that says which part of the name fails, or what the callable raised.

    >>> from whit.errors import DataError
    >>> made_by("math:pi", "the data", DataError)
    Traceback (most recent call last):
    whit.errors.DataError: math:pi is a float, which cannot be called; name a function that returns the data
    """
    home, _, path = where.partition(":")
    if not home or not path:
        raise error(f"{where!r} does not name {what}; write package.module:factory")
    module = _module(home, where, error)
    target: Any = module
    for part in path.split("."):
        if not hasattr(target, part):
            own = [name for name, item in vars(module).items() if getattr(item, "__module__", None) == home]
            raise error(f"{home} has no {path}; it defines {listed(own, most=20)}")
        target = getattr(target, part)
    if not callable(target):
        raise error(
            f"{where} is a {type(target).__name__}, which cannot be called; name a function that returns {what}"
        )
    _check_signature(target, where, error)
    try:
        return target()
    except WhitError:
        raise
    except Exception as problem:  # whatever the user's own code raises
        raise error(f"{where} raised {_described(problem, module)}") from problem


def _module(home: str, where: str, error: type[WhitError]) -> ModuleType:
    try:
        return importlib.import_module(home)
    except ModuleNotFoundError as problem:
        if problem.name is not None and (home == problem.name or home.startswith(f"{problem.name}.")):
            raise error(
                f"there is no module {problem.name}, so no {where}; run whit in the folder that holds it, or install it"
            ) from problem
        raise error(f"{home} cannot be imported: it needs {problem.name}, which is not installed") from problem
    except Exception as problem:  # whatever the user's own code raises
        raise error(f"{home} cannot be imported: {type(problem).__name__}: {problem}") from problem


def _check_signature(target: Any, where: str, error: type[WhitError]) -> None:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some compiled callables do not tell
        return
    try:
        signature.bind()
    except TypeError as problem:
        raise error(
            f"{where}{signature} cannot be called without arguments ({problem}); name a function that gives them"
        ) from problem


def _described(problem: Exception, module: ModuleType) -> str:
    """An exception with the line of the user's module that it passed through last."""
    own = [frame for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == module.__file__]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(problem).__name__}: {problem}{place}"

"""Checks that several steps share."""

import re

from whit.errors import PlanError, listed
from whit.formats import Format, Int

__all__ = ["check_activations", "check_choice", "check_pattern"]


def check_choice(step: str, name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ``PlanError`` for a value that is none of the choices."""
    if value not in choices:
        raise PlanError(f"{step}({name}={value!r}): choose one of {listed(choices)}")


def check_pattern(pattern: str, where: str) -> None:
    """Raise ``PlanError`` for what is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise PlanError(f"{where} is not a regular expression: {error}") from error


def check_activations(target: Format, name: str = "activations") -> None:
    """Raise ``PlanError`` for formats in which no runtime has activations."""
    if not isinstance(target, Int):
        problem, bits = "runtimes round activations to integers only", 8
    elif target.bits < 2:
        problem, bits = "activations have at least 2 bits", 2
    elif target.per != "tensor" or target.scale != "float32":
        problem, bits = "activations have one scale a tensor, a float32", target.bits
    else:
        return
    raise PlanError(f'Quantize({name}={target}): {problem}; write Int(bits={bits}, per="tensor", symmetric=False)')

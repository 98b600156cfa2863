"""Which channels of a network can only be cut together, which cannot be cut, and why: for people and as plain data."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whit.data import Samples
from whit.errors import listed
from whit.frontends import network_of
from whit.graph.coupling import couple

__all__ = ["describe_groups", "print_groups"]


def describe_groups(model: object, samples: Samples) -> dict[str, Any]:
    """The groups of coupled channels of a network.

    Args:
        model: A ``torch.nn.Module``, or the path of an ``.onnx`` file.
        samples: What it reads.

    Returns:
        ``groups`` (``name``, ``units``, and of every axis that is cut with them ``parameter``, ``axis``, ``each``: how
        many indices a unit takes) and ``frozen`` (``layer``, ``reason``), in the order in which channels are made.

    Raises:
        ModelError, DataError: The model cannot be read, or cannot run on the samples.
    """
    found = couple(network_of(model, samples).graph())
    groups = [
        {
            "name": group.name,
            "units": group.size,
            "axes": [
                {"parameter": parameter, "axis": axis, "each": indices.shape[1]}
                for (parameter, axis), indices in group.cuts.items()
            ],
        }
        for group in found.groups
    ]
    return {"groups": groups, "frozen": [{"layer": one, "reason": why} for one, why in found.frozen.items()]}


def print_groups(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what ``describe_groups`` found."""
    console = console or Console()
    table = Table("group", box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("units", justify="right", no_wrap=True)
    table.add_column("cut together, with axis and indices a unit", overflow="fold")
    for group in found["groups"]:
        axes = [f"{one['parameter']} {one['axis']} ({one['each']})" for one in group["axes"]]
        table.add_row(Text(group["name"]), f"{group['units']:,}", Text(listed(axes, most=1000)))
    console.print(table if found["groups"] else "no channels can be cut")
    for one in found["frozen"]:
        console.print(Text(f"stays: {one['layer']}: {one['reason']}"))

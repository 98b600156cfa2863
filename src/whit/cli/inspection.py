"""What a ``.whit`` file holds, read from its header; the arrays are read only if there are masks, to count zeros."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from whit.cli.table import bytes_text
from whit.errors import listed
from whit.formats import Format
from whit.ledger import Masked
from whit.store import read
from whit.store.container import VERSION, Container
from whit.store.decisions import arrays_of
from whit.store.fields import reading
from whit.toml import from_table

__all__ = ["describe", "format_text", "print_description"]


def describe(path: str | Path) -> dict[str, Any]:
    """A ``.whit`` file as plain data.

    Returns:
        ``file``, ``bytes``, ``format_version``, ``about`` (plan, metric and versions), ``tensors`` (``name``,
        ``shape``, ``stored``, ``sparsity`` or None, ``bytes``), ``structure`` (``folded``, ``scaled``, ``kept``,
        ``left_out``, ``factored``),
        ``activations`` (``tensor``, ``stored``, ``scale``, ``zero_point``) and ``graph_bytes`` (None without a graph).

    Raises:
        FileError: It is not a whole ``.whit`` file.
    """
    stored = read(path)
    found = _Reader(stored.container)
    with reading(str(path)):
        for decision in stored.container.content["decisions"]:
            found.add(decision)
        if any(table["kind"] == "masked" for table in stored.container.content["decisions"]):
            found.masks(stored.ledger().masks())
        network = stored.container.content.get("network")
        graph = None if network is None else stored.container.length(len(stored.container.pieces) - 1)
    return {
        "file": str(path),
        "bytes": stored.container.size,
        "format_version": VERSION,
        "about": dict(stored.about),
        "tensors": list(found.tensors.values()),
        "structure": {
            "folded": found.folded,
            "plain": found.plain,
            "scaled": found.scaled,
            "kept": found.kept,
            "left_out": found.left_out,
            "factored": found.factored,
        },
        "activations": found.activations,
        "graph_bytes": graph,
    }


class _Reader:
    """Collects what the tables of decisions say."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.next = 0
        self.tensors: dict[str, dict[str, Any]] = {}
        self.folded: list[dict[str, Any]] = []
        self.plain: list[dict[str, Any]] = []
        self.scaled: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self.left_out: list[dict[str, Any]] = []
        self.factored: list[dict[str, Any]] = []
        self.activations: list[dict[str, Any]] = []

    def add(self, table: Mapping[str, Any]) -> None:
        places = range(self.next, self.next + len(arrays_of(table)))
        self.next = places.stop
        if places.stop > len(self.container.pieces):
            raise ValueError("it needs more arrays than the file has")
        match table["kind"]:
            case "folded":
                self.folded.append({"batch_norm": table["batch_norm"], "into": table["into"]})
            case "plain":
                self.plain.append({"layer": table["layer"], "same": table.get("same", False)})
            case "scaled":
                where = {key: [name for name, *_ in table[key]] for key in ("made", "read")}
                where["inputs"] = list(table.get("inputs", {}))
                self.scaled.append({"group": table["group"], "channels": prod(self._shape(places[0])), **where})
            case "kept":
                axes = [
                    {"parameter": name, "axis": axis, "size": prod(self._shape(place))}
                    for (name, axis), place in zip(table["axes"], places, strict=True)
                ]
                self.kept.append({"group": table["group"], "axes": axes})
            case "left_out":
                self.left_out.append({key: table[key] for key in ("branch", "identity", "zeros")})
            case "factored":
                self.factored.append({key: table[key] for key in ("layer", "form", "ranks")})
            case "masked":
                self._tensor(table, places)
            case "rounded":
                self._tensor(table, places).update(shape=table["shape"], stored=_stored(table["target"]))
            case "rounded_activation":
                about = {"stored": _stored(table["target"]), "scale": table["scale"], "zero_point": table["zero_point"]}
                self.activations.append({"tensor": table["tensor"], **about})
            case "rounded_bias":
                found = self._tensor(table, places)
                found.update(shape=self._shape(places[0]), stored="int32 of input times weight scale")
            case _:
                stored = self.container.entry(places[0]).dtype
                self._tensor(table, places).update(shape=self._shape(places[0]), stored=stored)

    def masks(self, masks: Mapping[str, Masked]) -> None:
        """Add how many values of each tensor are masked."""
        for name, masked in masks.items():
            sparsity = 1 - np.count_nonzero(masked.mask) / max(1, masked.mask.size)
            self.tensors[name].update(shape=list(masked.mask.shape), sparsity=sparsity)

    def _tensor(self, table: Mapping[str, Any], places: range) -> dict[str, Any]:
        """The description of the parameter that a decision is about, its arrays' bytes added."""
        name = table["parameter"]
        empty = {"name": name, "shape": [], "stored": "", "sparsity": None, "bytes": 0}
        found = self.tensors.setdefault(name, empty)
        found["bytes"] += sum(self.container.length(place) for place in places)
        return found

    def _shape(self, place: int) -> list[int]:
        return list(self.container.pieces[place].shape)


def format_text(target: Format) -> str:
    """A number format in words: ``int4 per group of 32``."""
    if target.scale_format == "one":
        return target.name
    scale = "" if target.scale_format == "float32" else f", scales {target.scale_format}"
    return f"{target.name} per {f'group of {target.group_size}' if target.per == 'group' else target.per}{scale}"


def _stored(target: Mapping[str, Any]) -> str:
    """The number format that a table describes, in words."""
    return format_text(from_table(target, Format))


def print_description(found: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what ``describe`` found."""
    console = console or Console()
    about = found["about"]
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    say = partial(_say, console)
    say(f"{found['file']}: {bytes_text(found['bytes'])}, format version {found['format_version']}")
    if versions:
        say(f"written with {versions}")
    console.print(_tensors(found["tensors"]))
    graph = found["graph_bytes"]
    say("no graph: it holds parameters only" if graph is None else f"graph: {bytes_text(graph)}")
    if folded := [f"{one['batch_norm']} into {one['into']}" for one in found["structure"]["folded"]]:
        say(f"folded: {listed(folded, most=1000)}")
    if layers := [one["layer"] for one in found["structure"]["plain"]]:
        say(f"plain, whose weight was computed: {listed(layers, most=1000)}")
    for one in found["structure"]["scaled"]:
        made = one["made"] + one["inputs"]
        say(f"scaled: {one['channels']} channels of {listed(made)}, read by {listed(one['read'])}")
    for one in found["structure"]["kept"]:
        axes = ", ".join(f"{axis['parameter']} axis {axis['axis']} to {axis['size']}" for axis in one["axes"])
        say(f"cut with {one['group']}: {axes}")
    if branches := [one["branch"] for one in found["structure"]["left_out"]]:
        say(f"left out: the residual branches that begin with {listed(branches, most=1000)}")
    for one in found["structure"]["factored"]:
        say(f"factored: {one['layer']} in the form {one['form']}, rank {' and '.join(map(str, one['ranks']))}")
    for one in found["activations"]:
        say(f"rounded: {one['tensor']} to {one['stored']}, scale {one['scale']:.4g}, zero point {one['zero_point']}")
    if "plan" in about:
        say(f"\nplan:\n{about['plan'].rstrip()}")


def _tensors(tensors: Sequence[Mapping[str, Any]]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in ("tensor", "shape", "stored as"):
        made.add_column(title, overflow="fold")
    made.add_column("zeros", justify="right")
    made.add_column("bytes", justify="right", no_wrap=True)
    for one in tensors:
        zeros = "" if one["sparsity"] is None else f"{one['sparsity']:.1%}"
        shape = " x ".join(map(str, one["shape"])) or "scalar"
        made.add_row(Text(one["name"]), shape, one["stored"], zeros, f"{one['bytes']:,}")
    return made


def _say(console: Console, text: str) -> None:
    console.print(Text(text))

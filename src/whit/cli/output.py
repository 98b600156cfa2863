"""The folder that a run leaves: ``model.whit``, ``model.onnx``, ``plan.toml``, ``result.json``.

Where the network is slower in integers than in floating point, there is ``floating.onnx`` too.

A folder is written beside its place (``.NAME.partial``) and renamed, so that what is under the name is always whole. An
earlier folder is first renamed away (``.NAME.old``); a run that is killed just then leaves it under that name, and the
next one puts it back.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any, cast

from whit import measure
from whit.decide import Skipped
from whit.decide.mixing import LayerBits
from whit.errors import FileError, OutputError, listed
from whit.measure import Figures, Latency, Parity
from whit.metrics import named
from whit.result import Result
from whit.store import read, write_whole
from whit.toml import dumps, load_plan

__all__ = [
    "FLOATING",
    "MODEL",
    "ONNX",
    "ORIGINAL",
    "PLAN",
    "RESULT",
    "check_free",
    "facts",
    "foreign",
    "read_facts",
    "read_result",
    "write_into",
    "write_run",
]

MODEL, ONNX, PLAN, RESULT, ORIGINAL = "model.whit", "model.onnx", "plan.toml", "result.json", "original.onnx"
FLOATING = "floating.onnx"
_OURS = frozenset({MODEL, ONNX, PLAN, RESULT, ORIGINAL, FLOATING})


def check_free(folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder's full path, once it is known that a run can be written there; to be asked before a long run.

    An earlier folder that a kill left under another name is put back, and leftovers are removed.

    Raises:
        OutputError: It exists (unless ``overwrite``), holds what whit did not write, or cannot be written.
    """
    folder = Path(folder).resolve()
    _recover(folder)
    if folder.exists() and not overwrite:
        raise OutputError(f"{folder} exists already; choose another folder, or replace it with --overwrite")
    if folder.exists():
        _check_ours(folder)
    home = next(parent for parent in folder.parents if parent.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):
        raise OutputError(f"{folder} cannot be made: {home} is not a folder that you may write to")
    return folder


def write_run(result: Result[Any], folder: str | Path, *, overwrite: bool = False, keep_original: bool = False) -> Path:
    """Write a result to a folder: all of it, or nothing.

    Args:
        result: What ``whit.compress`` returned.
        folder: Made with its parents.
        overwrite: Replace the folder of an earlier run, which stays whole until the new one is.
        keep_original: Write ``original.onnx`` too, so that ``whit bench`` can measure against it.

    Returns:
        The folder's full path.

    Raises:
        OutputError: See ``check_free``; or the disk is full.
    """
    folder = check_free(folder, overwrite=overwrite)
    partial, old = _beside(folder, "partial"), _beside(folder, "old")
    try:
        partial.mkdir(parents=True)
        for name, content in _files(result, keep_original).items():
            _write(partial / name, content)
        if overwrite and folder.exists():
            folder.rename(old)
        elif folder.exists():
            raise OutputError(f"{folder} appeared while it was being written; choose another folder")
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error}") from error
    finally:
        _recover(folder)
    return folder


def write_into(result: Result[Any], folder: Path, *, keep_original: bool = False) -> None:
    """Write a result's files into a folder that holds others too, each whole, ``result.json`` last.

    Raises:
        OutputError: The folder cannot be written.
    """
    try:
        for name, content in _files(result, keep_original).items():
            write_whole(folder / name, content)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error}") from error


def facts(result: Result[Any]) -> dict[str, Any]:
    """What ``result.json`` holds: every figure, and what it was measured with and on."""
    content = {
        "metric": result.metric.name,
        "higher_is_better": result.metric.higher_is_better,
        "before": asdict(result.before),
        "after": asdict(result.after),
        "parity": asdict(result.parity),
        "skipped": [asdict(one) for one in result.skipped],
        "bits": [asdict(one) for one in result.bits],
        "floating_ms": None if result.floating_ms is None else asdict(result.floating_ms),
        "slowdown": result.slowdown,
        "versions": measure.versions(),
        "machine": measure.machine(),
        "threads": result.threads,
        "batch": result.batch,
        "runtime": result.runtime,
        "seconds": result.seconds,
    }
    return cast(dict[str, Any], _finite(content))


def read_facts(folder: str | Path) -> dict[str, Any]:
    """The ``result.json`` of a run's folder.

    Raises:
        FileError: The folder holds none, or it is not what whit writes.
    """
    folder = Path(folder)
    path = folder / RESULT
    if not path.is_file():
        raise FileError(f"{folder} holds no {RESULT}; name a folder that whit compress wrote")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or not {"before", "after", "metric"} <= content.keys():
        raise FileError(f"{path} is not the result of a run: it lacks before, after or metric")
    return cast(dict[str, Any], content)


def read_result(folder: str | Path) -> Result[None]:
    """The result that a run's folder holds, without the framework's network.

    Raises:
        FileError: A file is missing, or is not what whit writes.
    """
    folder = Path(folder)
    content = read_facts(folder)
    try:
        before, after = (_figures(content[key]) for key in ("before", "after"))
        original, floating = folder / ORIGINAL, folder / FLOATING
        time = content.get("floating_ms")
        return Result(
            model=None,
            plan=load_plan(folder / PLAN),
            ledger=read(folder / MODEL).ledger(),
            before=before,
            after=after,
            parity=Parity(**content["parity"]),
            metric=named(content["metric"]),
            skipped=tuple(Skipped(**one) for one in content["skipped"]),
            seconds=content["seconds"],
            file=(folder / MODEL).read_bytes(),
            onnx=(folder / ONNX).read_bytes(),
            original_onnx=original.read_bytes() if original.exists() else b"",
            threads=content["threads"],
            batch=content.get("batch", 1),
            runtime=content.get("runtime", "onnx"),
            bits=tuple(_layer_bits(one) for one in content.get("bits", ())),
            floating_ms=None if time is None else Latency(**time),
            floating_onnx=floating.read_bytes() if floating.exists() else b"",
        )
    except (KeyError, TypeError, OSError) as error:
        raise FileError(f"{folder} is not a whole run: {error!r}; run whit compress again") from error


def _layer_bits(content: dict[str, Any]) -> LayerBits:
    growths = {int(bits): growth for bits, growth in content["growths"].items()}  # JSON has no keys but text
    return LayerBits(layer=content["layer"], bits=content["bits"], growth=content["growth"], growths=growths)


def _figures(content: dict[str, Any]) -> Figures:
    figures: dict[str, Any] = content | {"latency_ms": Latency(**content["latency_ms"])}
    return Figures(**figures)


def _files(result: Result[Any], keep_original: bool) -> dict[str, bytes]:
    files = {
        MODEL: result.file,
        ONNX: result.onnx,
        PLAN: dumps(result.plan).encode(),
    }
    if result.slowdown is not None:
        files[FLOATING] = result.floating_onnx
    if keep_original:
        files[ORIGINAL] = result.original_onnx
    return files | {RESULT: (json.dumps(facts(result), indent=2, allow_nan=False) + "\n").encode()}


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _recover(folder: Path) -> None:
    """Whatever a run was doing when it ended: the old folder is back, or gone for the new one, and no part is left."""
    old, partial = _beside(folder, "old"), _beside(folder, "partial")
    if old.exists() and not folder.exists():
        old.rename(folder)
    for leftover in (old, partial):
        if leftover.is_dir() and not foreign(leftover):
            shutil.rmtree(leftover, ignore_errors=True)


def _check_ours(folder: Path) -> None:
    """Raise unless replacing a folder loses nothing but an earlier run."""
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose the name of a folder")
    if others := foreign(folder):
        raise OutputError(
            f"{folder} is not replaced, for it holds what whit compress did not write ({listed(others)}); "
            "choose another folder"
        )


def foreign(folder: Path, beside: frozenset[str] = frozenset()) -> list[str]:
    """What a folder holds that no run wrote, and that is not among the names ``beside``."""
    return sorted({item.name for item in folder.iterdir()} - _OURS - beside)


def _finite(value: Any) -> Any:
    """Plain data with NaN and infinities as None: JSON has no others."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in cast(Mapping[str, Any], value).items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in cast(list[Any], value)]
    return None if isinstance(value, float) and not isfinite(value) else value

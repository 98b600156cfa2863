"""Reading a ``.pt2`` file (``torch.export.save``) without running code that it brings.

``torch.export.load`` unpickles parts of some files and evaluates the symbolic sizes of all. So a file is looked through
first: weights and constants must be plain bytes, the sample inputs must be plain tensors, and sizes must be made of
numbers and names of functions.
"""

import ast
import io
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader

from whit.errors import ModelError, listed
from whit.torch.layers import with_layers_

__all__ = ["open_exported"]

_PLAIN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/model\.json|extra/.*"
    r"|data/(weights|constants)/model_(weights|constants)_config\.json"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+|data/sample_inputs/model\.pt"
)
_ATOM = re.compile(r"[A-Za-z]\w*|-?[\d.]+(e-?\d+)?")


def open_exported(path: str | Path) -> nn.Module:
    """The module of an exported program.

    Raises:
        ModelError: It is not a whole ``.pt2`` file, or opening it would run code that it brings.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = path.read_bytes()
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)  # what it logs, it raises too
    try:
        _check(content, path)
        program = torch.export.load(io.BytesIO(content))
        _check_batch(program, path)
        return with_layers_(program.module())
    except ModelError:
        raise
    except Exception as error:  # torch raises whatever its parts raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"{path} cannot be read as a program of torch.export: {reason}. Write it again with this torch "
            f"({torch.__version__})"
        ) from error
    finally:
        log.setLevel(level)


def _check(content: bytes, path: Path) -> None:
    """Raise ``ModelError`` unless everything in the archive is plain."""
    try:
        reader = PT2ArchiveReader(io.BytesIO(content))
        names = reader.get_file_names()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # torch reads the archive in one way and, where that fails, in another: both must see the same files.
            seen = [name.partition("/")[2] for name in archive.namelist()]
    except (RuntimeError, AssertionError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} is not a whole .pt2 file; write it with torch.export.save") from error
    odd = [name for name in names if not _PLAIN.fullmatch(name)]
    if odd or sorted(seen) != sorted(names) or len(set(names)) != len(names):
        raise ModelError(
            f"{path} holds more than a program and its weights ({listed(odd or seen)}); whit does not open it"
        )
    for kind in ("weights", "constants"):
        for name, entry in json.loads(reader.read_bytes(f"data/{kind}/model_{kind}_config.json"))["config"].items():
            if entry["use_pickle"]:
                raise ModelError(f"{path} holds {name} as a pickle, which could run code; whit never opens pickles")
    try:
        torch.load(io.BytesIO(reader.read_bytes("data/sample_inputs/model.pt")), weights_only=True)
    except Exception as error:
        raise ModelError(f"{path} holds sample inputs that are not plain tensors; whit does not open it") from error
    for text in _sizes(json.loads(reader.read_bytes("models/model.json"))):
        if not _is_plain_size(text):
            raise ModelError(f"{path} gives a size as {text!r}, which could run code; whit does not open it")


def _check_batch(program: ExportedProgram, path: Path) -> None:
    """Raise ``ModelError`` unless the program takes batches of any size."""
    inputs = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in inputs and isinstance(node.meta["val"].shape[0], int):
            raise ModelError(
                f"{path} takes batches of exactly {node.meta['val'].shape[0]}; export it with "
                'dynamic_shapes=({0: torch.export.Dim("batch")},) and two samples or more'
            )


def _sizes(value: Any) -> Iterator[str]:
    """Every symbolic expression in a program."""
    if isinstance(value, dict):
        for key, item in cast(dict[str, Any], value).items():
            if key == "expr_str":
                yield str(item)
            else:
                yield from _sizes(item)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            yield from _sizes(item)


def _is_plain_size(text: str) -> bool:
    """Whether an expression is calls of SymPy's classes on names, numbers and other such calls.

    >>> _is_plain_size("Add(Symbol('s7', positive=True), Integer(2))"), _is_plain_size("eval('x')")
    (True, False)
    """
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name[0].isupper():
                pass
            case ast.Name(id=name) if name[0].isupper() or re.fullmatch(r"[a-z]+\d+|true|false|oo", name):
                pass
            case ast.Constant(value=str(value)) if _ATOM.fullmatch(value):
                pass
            case ast.Constant(value=bool() | int() | float()):
                pass
            case ast.Expression() | ast.keyword() | ast.Load() | ast.UnaryOp() | ast.USub() | ast.BinOp():
                pass
            case ast.operator():
                pass
            case _:
                return False
    return True

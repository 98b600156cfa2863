"""A checkpoint too large for memory: safetensors shards in, ``.whit`` shards out, one after the other or by workers.

What is in memory at a time is one shard: tensors that follow each other, with no more than ``shard_bytes`` as float32,
or one tensor that alone has more.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from whit import measure
from whit.decide import Skipped
from whit.errors import FileError, ModelError, OutputError, PlanError, listed
from whit.finite import check_finite
from whit.ledger import Decision, Ledger
from whit.plan import Plan
from whit.progress import Progress
from whit.steps import Prune, Quantize, Step, setting, settings
from whit.store import Profile, check_profile, encode, read, write_whole
from whit.toml import dumps, loads
from whit.weights_only import WeightsRun, assigned, check_step, not_numbers
from whit.workers import Workers

__all__ = ["INDEX", "CheckpointResult", "compress_checkpoint", "shards_of"]

INDEX = "index.json"
"""Says which shards belong together; written last."""
_FORMAT = "whit shards 1"


class _Tensor(NamedTuple):
    """Where a tensor lies, and what it is."""

    name: str
    file: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def is_layer(self) -> bool:
        return len(self.shape) >= 2 and self.size > 0 and self.dtype.startswith(("F", "BF"))


class _Task(NamedTuple):
    """A shard to make; all that a worker needs."""

    tensors: tuple[_Tensor, ...]
    plan: str
    profile: Profile
    out: str
    source: str


class Shard(NamedTuple):
    """A shard that was made.

    Attributes:
        file: Its name.
        tensors: How many tensors it has.
        parameters: How many numbers.
        bytes: Of the file.
        skipped: Layers that could not be quantized, and why.
    """

    file: str
    tensors: int
    parameters: int
    bytes: int
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointResult:
    """A compressed checkpoint; ``whit.load(folder, into=model)`` reads it.

    Attributes:
        folder: Where its shards are.
        shards: In order.
        bytes_before: Of the files that were given.
        seconds: How long it took; shards that were there already took none.
    """

    folder: Path
    shards: tuple[Shard, ...]
    bytes_before: int
    seconds: float

    @property
    def parameters(self) -> int:
        """How many numbers all tensors have."""
        return sum(shard.parameters for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Of all shards on disk, without the index."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Layers that could not be quantized, and why."""
        return tuple(one for shard in self.shards for one in shard.skipped)


def compress_checkpoint(
    path: str | Path,
    plan: Plan | Step,
    out: str | Path,
    *,
    profile: Profile = "fast",
    shard_bytes: int = 1 << 28,
    workers: Workers | None = None,
    progress: Progress | None = None,
) -> CheckpointResult:
    """Compress a checkpoint by the steps of a plan that need only weights, never holding more than a shard in memory.

    Layers, which are pruned and quantized, are the tensors of floating point with two or more axes, rows first as torch
    has them; they are read as float32. A layer's name is its tensor's, and rules match the whole of it. All other
    tensors are stored as they are. The same call, made again after it was stopped, goes on from the shards that are
    there, and gives the same bytes however many workers there are.

    Args:
        path: A safetensors file, or a folder with some, such as ``model-00001-of-00005.safetensors``.
        plan: ``Prune`` of single weights, layer by layer, and ``Quantize(activations=None)`` steps.
        out: A folder for the ``.whit`` shards and their index.
        profile: How codes are stored, ``"fast"`` or ``"small"``.
        shard_bytes: Most bytes, as float32, of the tensors of a shard, unless it is one tensor alone.
        workers: Who makes the shards; None makes them here, one after the other. Each worker has a shard in memory.
        progress: Shows what is under way.

    Raises:
        PlanError: A step needs more than the weights of a layer alone, or a rule matches no layer.
        FileError: A file is no safetensors file, or is damaged.
        ModelError: A tensor stands in two files, or there is no layer.
        WeightsError: There are NaN or infinite weights.
        OutputError: ``out`` holds something else, or cannot be written.
    """
    start = perf_counter()
    check_profile(profile)
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    files = _files(Path(path))
    tensors = [tensor for file in files for tensor in _tensors(file)]
    _check(plan, tensors)
    folder = Path(out)
    tasks = _tasks(tensors, plan, profile, folder, shard_bytes)
    _prepare(folder, tasks)
    shards: list[Shard] = []
    with (progress or Progress()).bar("compressing shards", len(tasks)) as bar:
        for shard in (workers or Workers()).map(_made, tasks):
            shards.append(shard)
            bar.advance(1, note=shard.file)
    index = {"format": _FORMAT, "plan": dumps(plan), "shards": [shard.file for shard in shards]}
    write_whole(folder / INDEX, json.dumps(index, indent=2).encode())
    return CheckpointResult(
        folder=folder,
        shards=tuple(shards),
        bytes_before=sum(file.stat().st_size for file in files),
        seconds=perf_counter() - start,
    )


def shards_of(folder: str | Path) -> list[Path]:
    """The shards of a compressed checkpoint, in order.

    Raises:
        FileError: There is no whole one in the folder.
    """
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileError(
            f"{folder} holds no compressed checkpoint: it has no {INDEX}, which is written last. Run the compression "
            "again; it goes on where it was"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"cannot read {path}: {error}") from error
    names = index.get("shards") if isinstance(index, dict) and index.get("format") == _FORMAT else None
    if not isinstance(names, list) or not all(isinstance(name, str) and Path(name).name == name for name in names):
        raise FileError(f"{path} is not the index of a compressed checkpoint of this version")
    return [Path(folder) / name for name in names]


def _files(path: Path) -> list[Path]:
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise FileError(f"{path} holds no .safetensors files")
    return files


def _tensors(file: Path) -> Iterator[_Tensor]:
    with _open(file) as source:
        for name in source.keys():  # noqa: SIM118 (no mapping)
            found = source.get_slice(name)
            yield _Tensor(name, str(file), tuple(found.get_shape()), found.get_dtype())


def _open(file: Path) -> Any:
    try:
        import_module("ml_dtypes")  # names bfloat16 and the 8-bit floats in NumPy
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise ModelError(f"reading checkpoints needs {error.name}: pip install 'whit[checkpoint]'") from error
    try:
        return safe_open(file, "np")
    except (SafetensorError, OSError) as error:
        raise FileError(f"{file} cannot be read as safetensors: {error}") from error


def _check(plan: Plan, tensors: Sequence[_Tensor]) -> None:
    """Raise what can be raised before anything long begins."""
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise ModelError(f"several files have a tensor {listed(sorted({n for n in names if names.count(n) > 1}))}")
    layers = [tensor.name for tensor in tensors if tensor.is_layer]
    if not layers:
        raise ModelError("the checkpoint has no layer, which is a floating-point tensor of two or more axes")
    for place, step in enumerate(plan.steps, 1):
        check_step(step, place)
        if isinstance(step, Prune) and step.scope not in ("layer", "row"):
            raise PlanError(
                f"step {place}, Prune(scope={step.scope!r}): it compares layers, and a checkpoint is read one after "
                'another; take scope="layer"'
            )
        assert isinstance(step, Prune | Quantize)
        settings(step, layers)


def _tasks(tensors: Sequence[_Tensor], plan: Plan, profile: Profile, folder: Path, shard_bytes: int) -> list[_Task]:
    """One a shard, in the order of the tensors."""
    groups: list[list[_Tensor]] = []
    room = 0
    for tensor in tensors:
        room -= 4 * tensor.size
        if room < 0 or not groups:
            groups.append([])
            room = shard_bytes - 4 * tensor.size
        groups[-1].append(tensor)
    width, text = len(str(len(groups))), dumps(plan)
    return [
        _Task(
            tuple(group), text, profile, str(folder / f"weights-{place:0{width}}-of-{len(groups)}.whit"), _state(group)
        )
        for place, group in enumerate(groups, 1)
    ]


def _state(tensors: Sequence[_Tensor]) -> str:
    """What tells the files that tensors come from, as they are now, from others."""
    states = [(file, (found := Path(file).stat()).st_size, found.st_mtime_ns) for file in {t.file: 0 for t in tensors}]
    return sha256(repr((tensors, states)).encode()).hexdigest()


def _prepare(folder: Path, tasks: Sequence[_Task]) -> None:
    """Make the folder, or see that what is in it is an earlier, unfinished or whole run of the same."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {folder}: {error}") from error
    ours = {Path(task.out).name for task in tasks} | {INDEX}
    if others := sorted(one.name for one in folder.iterdir() if one.name not in ours and not one.name.startswith(".")):
        raise OutputError(f"{folder} holds {listed(others)}, which this call does not write; name another folder")


def _made(task: _Task) -> Shard:
    """Make a shard, unless it is there."""
    out = Path(task.out)
    about = {"plan": task.plan, "source": task.source, "profile": task.profile}
    parameters = sum(tensor.size for tensor in task.tensors)
    if out.exists() and (kept := _kept(out, about)) is not None:
        return Shard(out.name, len(task.tensors), parameters, out.stat().st_size, kept)
    plan = loads(task.plan)
    decisions: list[Decision] = []
    skipped: list[Skipped] = []
    for tensor in task.tensors:
        found, missed = _decided(tensor, plan)
        decisions += found
        skipped += missed
    reasons = [[one.step, one.layer, one.reason] for one in skipped]
    facts = {**about, "skipped": reasons, "versions": measure.versions()}
    content = encode(Ledger().record(*decisions), None, facts, profile=task.profile)
    write_whole(out, content)
    return Shard(out.name, len(task.tensors), parameters, len(content), tuple(skipped))


def _kept(out: Path, about: Mapping[str, Any]) -> tuple[Skipped, ...] | None:
    """What was skipped in a shard that is there, or None if it is of another call or damaged."""
    try:
        facts = read(out).about
    except FileError:
        return None
    if any(facts.get(name) != value for name, value in about.items()):
        raise OutputError(f"{out} was made by another plan or from other files; remove it or name another folder")
    return tuple(Skipped(step=step, layer=layer, reason=reason) for step, layer, reason in facts["skipped"])


def _decided(tensor: _Tensor, plan: Plan) -> tuple[list[Decision], list[Skipped]]:
    """What a plan decides about one tensor."""
    with _open(Path(tensor.file)) as source:
        values = source.get_tensor(tensor.name)
    check_finite({tensor.name: not_numbers(values)})
    if not tensor.is_layer:
        return [assigned(tensor.name, values)], []
    run = WeightsRun({tensor.name: values.astype(np.float32)}, channel_axis=0)
    for step in plan.steps:
        assert isinstance(step, Prune | Quantize)
        mine = setting(step, tensor.name)
        if mine is not None:
            run.take(mine)
    return list(run.settled()), run.skipped

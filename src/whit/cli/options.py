"""Options that several commands have, and what their words mean."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from whit.data import Images
from whit.errors import ModelError
from whit.progress import Progress
from whit.workers import Processes, Ray, Workers

__all__ = [
    "AsJson",
    "Batch",
    "ImageLayout",
    "Mean",
    "Overwrite",
    "Profile",
    "Runtime",
    "Scale",
    "Std",
    "Threads",
    "images_of",
    "model_of",
    "workers_of",
]


class Layout(StrEnum):
    """Order of the axes of stored images."""

    NHWC = "NHWC"
    NCHW = "NCHW"


class Profile(StrEnum):
    """How codes are stored."""

    SMALL = "small"
    FAST = "fast"


class Runtime(StrEnum):
    """What a ``.whit`` file can be exported to."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    LITERT = "litert"
    EXECUTORCH = "executorch"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.485,0.456,0.406") from error


Threads = Annotated[int, typer.Option(min=1, help="Threads of ONNX Runtime when latency is measured.")]
Batch = Annotated[int, typer.Option(min=1, help="Samples of the calls of which latency is measured.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run wrote.")]
Scale = Annotated[float | None, typer.Option(help="Images are multiplied by this first, e.g. 0.00392157 for bytes.")]
Mean = Annotated[str | None, typer.Option(help="Then subtracted: one number a channel, a,b,c.")]
Std = Annotated[str | None, typer.Option(help="Then divided by: one number a channel, a,b,c.")]
ImageLayout = Annotated[Layout | None, typer.Option(help="Order of the images' axes; the model reads NCHW.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]


def workers_of(count: int | None, ray: str | None) -> Workers | None:
    """Who does tasks; None for this process."""
    if ray:
        return Ray(ray, count)
    return Processes(count) if count is not None and count > 1 else None


def images_of(scale: float | None, mean: str | None, std: str | None, layout: Layout | None) -> Images | None:
    """The options for images, or None where none was given."""
    if scale is None and mean is None and std is None and layout is None:
        return None
    order: Literal["NHWC", "NCHW"] = "NHWC" if layout is Layout.NHWC else "NCHW"
    return Images(
        scale=1.0 if scale is None else scale,
        mean=(0.0,) if mean is None else _numbers(mean),
        std=(1.0,) if std is None else _numbers(std),
        layout=order,
    )


def model_of(where: str, weights: Path | None, bars: Progress) -> object:
    """The network that MODEL names: the path of an ONNX file, or a module with these weights."""
    if where.endswith(".onnx"):
        if weights is not None:
            raise ModelError(f"{where} holds its weights itself; leave out --weights")
        return where
    with bars.bar("loading the network", 1):
        try:
            from whit.torch.sources import model_from
        except ModuleNotFoundError as error:
            raise ModelError(f"whit compress needs {error.name}: pip install 'whit[torch]'") from error
        return model_from(where, weights)

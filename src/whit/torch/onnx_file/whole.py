"""The bytes of an ONNX file with its weights, which exporters put into a second file beside it.

A file is a stranger's: it may name a file of its own, in its folder and by its name, and nothing else is opened.
"""

from pathlib import Path

from google.protobuf.message import DecodeError, EncodeError
from onnx import ModelProto, TensorProto

from whit.errors import ModelError

__all__ = ["whole"]

_INSTEAD = 'Put the weights into it: onnx.save(onnx.load("model.onnx"), "whole.onnx")'


def whole(path: str | Path) -> bytes:
    """The bytes of a file, as they are where it holds its weights itself.

    Raises:
        ModelError: There is no such file, its weights are in none of its own, or it is too large to be one file.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file {path}")
    content = path.read_bytes()
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        return content  # whoever reads it says so
    elsewhere = [one for one in model.graph.initializer if one.data_location == TensorProto.EXTERNAL]
    for tensor in elsewhere:
        try:
            tensor.raw_data = _values(tensor, path)
        except ModelError as error:
            raise ModelError(f"{path}: initializer {tensor.name} {error}") from error
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
    try:
        return model.SerializeToString() if elsewhere else content
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{path} and its weights are more than the 2 GB of an ONNX file: {error}") from error


def _values(tensor: TensorProto, path: Path) -> bytes:
    """What a file of the model's own holds of a tensor."""
    fields = {one.key: one.value for one in tensor.external_data}
    name = fields.get("location", "")
    if Path(name).name != name or "\\" in name or not name.startswith(path.stem):
        raise ModelError(
            f"lies in {name!r}; whit opens files in the same folder whose names begin with {path.stem}, and follows no "
            f"paths. {_INSTEAD}"
        )
    file = path.with_name(name)
    if file.is_symlink() or not file.is_file():
        raise ModelError(f"lies in {name}, which is no file beside it. Copy it there, or write the network again")
    try:
        first = int(fields.get("offset", 0))
        size = int(fields.get("length", file.stat().st_size - first))
    except ValueError as error:
        raise ModelError(f"lies in {name} at no place: {error}; the file is damaged") from error
    if min(first, size) < 0 or first + size > file.stat().st_size:
        raise ModelError(f"lies in {name} from byte {first} on, {size} bytes, which it has not; the file is damaged")
    with file.open("rb") as stream:
        stream.seek(first)
        return stream.read(size)

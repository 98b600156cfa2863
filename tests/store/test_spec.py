"""``spec/whit-format.md`` says what the code does."""

import re
from pathlib import Path

import numpy as np
import pytest

from whit.ledger import Assigned, Ledger
from whit.onnx.initializers import TYPES
from whit.store import encode, read
from whit.store.container import LARGEST_HEADER, MAGIC, MOST_VALUES, VERSION
from whit.store.decisions import tables
from whit.store.fields import MOST_AXES

SPEC = (Path(__file__).parents[2] / "spec" / "whit-format.md").read_text(encoding="utf-8")


def example():
    """The bytes of the example."""
    rows = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)$", SPEC, re.MULTILINE)
    return bytes.fromhex("".join(rows))


def test_the_example_is_a_file(tmp_path):
    path = tmp_path / "example.whit"
    path.write_bytes(example())
    stored = read(path)
    (decision,) = stored.ledger()
    assert (decision.parameter, decision.values.dtype, decision.values.tolist()) == ("w", np.int8, [1, 2, 3])
    assert stored.about == {}


def test_the_example_is_what_is_written():
    written = encode(Ledger().record(Assigned(parameter="w", values=np.array([1, 2, 3], np.int8))), None, {})
    assert written == example()


@pytest.mark.parametrize(
    "number", [f"{LARGEST_HEADER:,}", f"{MOST_VALUES:,}", f"at most {MOST_AXES} whole", f"format version {VERSION}"]
)
def test_limits_are_those_of_the_code(number):
    assert number in SPEC
    assert MAGIC.hex(" ").upper() in SPEC


@pytest.mark.parametrize("kind", tables.FIELDS)
def test_every_decision_is_described_with_its_fields(kind):
    rows = SPEC.partition(f"| `{kind}` |")[2]
    described = rows[: re.search(r"\n\| `|\n\n", rows).start()]
    assert all(f"`{field}`" in described for field in tables.FIELDS[kind])


def test_decisions_are_described_in_their_order():
    places = [SPEC.index(f"| `{kind}` |") for kind in tables.FIELDS]
    assert places == sorted(places)


@pytest.mark.parametrize("kind", tables.OPTIONAL)
def test_fields_that_may_be_missing_are_described(kind):
    rows = SPEC.partition(f"| `{kind}` |")[2]
    described = rows[: re.search(r"\n\| `|\n\n", rows).start()]
    for field in tables.OPTIONAL[kind]:
        (row,) = re.findall(rf"^\| \| `{field}` \| .*$", described, re.MULTILINE)
        assert "missing" in row


@pytest.mark.parametrize(("dtype", "kind"), TYPES.items())
def test_every_type_of_values_in_a_network_is_described(dtype, kind):
    assert f"{kind} {dtype}" in SPEC.partition("### Network")[2]


@pytest.mark.parametrize("way", ["codes", "floats", "bytes"])
def test_every_way_to_store_an_array_is_described(way):
    assert f'| `"{way}"` |' in SPEC.partition("### Rows")[2].partition("###")[0]

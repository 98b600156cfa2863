"""``spec/whit-format.md`` says what the code does."""

import re
from pathlib import Path

import numpy as np
import pytest

from whit.ledger import Assigned, Ledger
from whit.store import decisions, encode, network, read
from whit.store.arrays import Entry
from whit.store.container import LARGEST_HEADER, MAGIC, MOST_VALUES, VERSION
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


def test_the_example_is_what_is_written(tmp_path):
    written = encode(Ledger().record(Assigned(parameter="w", values=np.array([1, 2, 3], np.int8))), None, {})
    # Between builds of zlib the compressed header may differ, its length and checksum with it.
    assert written[:12] == example()[:12]
    assert written[-1:] == example()[-1:]
    path = tmp_path / "example.whit"
    path.write_bytes(written)
    contents = [read(path).container.content, read(path).container.entries]
    path.write_bytes(example())
    assert [read(path).container.content, read(path).container.entries] == contents


@pytest.mark.parametrize(
    "number", [f"{LARGEST_HEADER:,}", f"{MOST_VALUES:,}", f"at most {MOST_AXES} whole", f"format version {VERSION}"]
)
def test_limits_are_those_of_the_code(number):
    assert number in SPEC
    assert MAGIC.hex(" ").upper() in SPEC


@pytest.mark.parametrize("kind", decisions._FIELDS)
def test_every_decision_is_described_with_its_fields(kind):
    rows = SPEC.partition(f"| `{kind}` |")[2]
    described = rows[: re.search(r"\n\| `|\n\n", rows).start()]
    assert all(f"`{field}`" in described for field in decisions._FIELDS[kind])


def test_decisions_are_described_in_their_order():
    places = [SPEC.index(f"| `{kind}` |") for kind in decisions._FIELDS]
    assert places == sorted(places)


@pytest.mark.parametrize("source", network._FIELDS)
def test_every_source_of_a_weight_is_described_with_its_suffix_and_fields(source):
    (row,) = re.findall(rf"^\| `{source}` \| (?:.*\|){{3}}$", SPEC.partition("### Network")[2], re.MULTILINE)
    _, _, suffix, more, _, _ = row.split("|")
    assert suffix.strip(" `") == network._SUFFIXES[source]
    assert set(re.findall(r"`(\w+)`", more)) == network._FIELDS[source]


def test_every_field_of_an_entry_is_described():
    rows = SPEC.partition("### Entries of arrays")[2].partition("###")[0]
    assert all(f"`{field}`" in rows for field in Entry.__dataclass_fields__)

"""What every benchmark needs: where the data lies, and a table that goes to the screen and to a JSON file."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

__all__ = ["HERE", "arguments", "data_file", "report"]


def data_file(name: str) -> Path:
    """A file of the benchmark data (``WHIT_DATA``, by default ``../shared/data`` beside the repository)."""
    home = Path(os.environ.get("WHIT_DATA", HERE.parent.parent / "shared" / "data"))
    path = home / name
    if not path.exists():
        sys.exit(f"this benchmark needs {name}, which is not in {home}; set WHIT_DATA to the folder that has it")
    return path


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    return parser


def report(rows: Sequence[dict[str, Any]], json_file: Path | None) -> None:
    """Print rows as a Markdown table, and write them as a JSON list."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([_text(row[column]) for column in columns] for row in rows)]
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))
    if json_file is not None:
        json_file.write_text(json.dumps(list(rows), indent=2) + "\n", encoding="utf-8")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)

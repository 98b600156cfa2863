"""Networks in the files of other runtimes, each run and compared once it is written: one target a file."""

from whit.export.exporter import Exporter, Runs, Source
from whit.export.exporting import Exported, export, exporters

__all__ = ["Exported", "Exporter", "Runs", "Source", "export", "exporters"]

from io import StringIO
from time import sleep

from rich.console import Console

from whit.cli.bars import Bars


def terminal() -> tuple[StringIO, Console]:
    file = StringIO()
    return file, Console(file=file, force_terminal=True, width=80)


def test_what_is_short_shows_nothing() -> None:
    file, console = terminal()
    with Bars(console, patience=5).bar("brief", 3) as bar:
        bar.advance()
    assert file.getvalue() == ""


def test_what_is_long_shows_a_bar_with_its_note() -> None:
    file, console = terminal()
    with Bars(console, patience=0.01).bar("training", 4) as bar:
        bar.advance(1, note="loss 0.5")
        sleep(0.3)
    assert "training" in file.getvalue()
    assert "25%" in file.getvalue()
    assert "loss 0.5" in file.getvalue()


def test_bars_nest_and_come_again() -> None:
    file, console = terminal()
    bars = Bars(console, patience=0.01)
    with bars.bar("outer", 1), bars.bar("inner", 10):
        sleep(0.2)
    with bars.bar("later", 10):
        sleep(0.2)
    for name in ("outer", "inner", "later"):
        assert name in file.getvalue()


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    file = StringIO()
    with Bars(Console(file=file), patience=0.0).bar("training", 4) as bar:
        sleep(0.05)
        bar.advance()
    assert file.getvalue() == ""

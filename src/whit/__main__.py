"""``python -m whit`` is the ``whit`` command."""

from whit.cli import main

main()

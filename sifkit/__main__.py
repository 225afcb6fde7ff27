"""``python -m sifkit``: the same as the ``sifkit`` command."""

import sys

from sifkit.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())

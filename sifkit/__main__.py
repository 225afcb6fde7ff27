"""``python -m sifkit``: the same as the ``sifkit`` command."""

from sifkit.cli import run

__all__: list[str] = []

if __name__ == "__main__":
    run()

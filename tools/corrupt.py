"""Damage a sound ext3 image by a recipe: one kind of fault each, for tests of repairs.

    python -m tools.corrupt                  list the recipes
    python -m tools.corrupt NAME IMAGE       write the damaged image
    python -m tools.corrupt --all DIRECTORY  write them all

A recipe is a list of field paths with values (see damage.py); the sound images are those of sound_images.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from . import damage
from .damage import Recipe
from .recipes import combined, directories, inodes, journal, random_finds, structure, volume
from .sound_images import base_image

__all__ = ["RECIPES", "damaged", "main"]

RECIPES: dict[str, Recipe] = {}
for _part in (volume, journal, inodes, directories, structure, combined, random_finds):
    for _recipe in _part.RECIPES:
        if _recipe.name in RECIPES:
            raise ValueError(f"two recipes are called {_recipe.name}")
        RECIPES[_recipe.name] = _recipe


def damaged(recipe: Recipe) -> bytes:
    """Return the recipe's sound image with its damage."""
    return damage.damaged(recipe, base_image(recipe.base))


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        for recipe in RECIPES.values():
            print(f"{recipe.name:<32} {recipe.base:<9} {recipe.row}{f' (no fault: {recipe.clean})' if recipe.clean else ''}")
        return 0
    if len(words) != 2:
        print(__doc__)
        return 16
    if words[0] == "--all":
        Path(words[1]).mkdir(exist_ok=True)
        for recipe in RECIPES.values():
            Path(words[1], f"{recipe.name}.img").write_bytes(damaged(recipe))
        return 0
    Path(words[1]).write_bytes(damaged(RECIPES[words[0]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

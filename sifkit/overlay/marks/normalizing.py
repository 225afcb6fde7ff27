"""Normalization of an overlay: marks of removed files in the forms that hold for every user of Apptainer.

See ``mark_plan`` for what changes. An overlay in a SIF image has a base, the root of the image. A run with nothing to do opens
the image for reading only, so that signatures stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ext3.hostio import HostPath

from ...errors import UsageError, show
from ...vfs.file_tree import FileTree
from ...vfs.union import UnionTree
from ..edit.edit_session import EditOptions, edit_image
from ..images.opening import open_image
from ..images.sif_partition import filesystem_place, open_sif, select_partition
from ..view.container import ContainerLayer, is_overlay, open_container
from ..view.layer_tree import LayerTree
from ..view.overlay_argument import OverlayArgument
from ..view.tree_opening import upper_directory
from .mark_plan import DirectoryMarks, MarkPlan, MarkPlanner, MarkProblem
from .mark_writer import MarkWriter

if TYPE_CHECKING:
    from ext3.edit.filesystem import WritableFilesystem

    from ...sif import Stamp
    from ..images.reservation import OnSignatures

__all__ = ["NormalizeOptions", "NormalizeResult", "Observer", "normalize", "normalize_filesystem", "open_base"]


Observer = Callable[[bytes, DirectoryMarks], None]
"""Callback for a directory whose marks were changed, or would be: its path in the container, and the changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeOptions:
    """Options of a normalization.

    ``base``: image or directory that the overlay is used with; a SIF image is its own. ``overlays``: layers between the base
    and this one, later ones higher. ``dry_run``: write nothing.
    ``partition``: of a SIF: "overlay" (the default) or an ID. ``offset``: byte of a larger file where the filesystem begins.
    ``on_signatures``, ``require_lock``, ``stamp``: see ``EditOptions``.
    """

    base: HostPath | None = None
    overlays: Sequence[OverlayArgument] = ()
    dry_run: bool = False
    partition: str | None = None
    offset: int | None = None
    on_signatures: OnSignatures = "refuse"
    require_lock: bool = False
    stamp: Stamp | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeResult:
    """Result of a normalization; with ``dry_run`` of its plan. For the numbers see ``MarkPlan``.

    ``has_base``: the layers below were known. ``locked`` False: file locking is unavailable (None: nothing was locked).
    ``notes``: for the user. ``dropped``: IDs of removed signatures.
    """

    converted: int
    hidden: int
    opened: int
    marked: int
    removed: int
    opaque: int
    problems: tuple[MarkProblem, ...]
    problem_count: int
    unchanged: bool
    has_base: bool
    dry_run: bool = False
    locked: bool | None = None
    notes: tuple[str, ...] = ()
    dropped: tuple[int, ...] = ()


def normalize(path: HostPath, options: NormalizeOptions | None = None, *, observe: Observer | None = None) -> NormalizeResult:
    """Normalize the marks of the overlay at ``path``, in a SIF there, or at an offset.

    Problems of single names are in the result, and these names stay. Raises MissingPathError without upper/,
    RenamedDirectoryError with a base and a renamed directory, what ``edit_image`` does, and the errors of a base that cannot be
    read. An error after the first commit leaves an image whose marks are each the old or the new one.
    """
    options = options or NormalizeOptions()
    name = os.fsdecode(path)
    partition, offset = filesystem_place(name, options.partition, options.offset)
    with open_base(name, partition, options) as base:
        with open_image(name, partition, offset=offset) as image:
            users = image.watch().users()
            planner = _planner(image.tree, base)
            plan = planner.plan()
            if options.dry_run and observe is not None:
                for directory in plan.directories:
                    observe(directory.path, planner.marks(directory))
        if options.dry_run or not (plan.directories or users.busy):
            notes = (f"{show(name)} is in use: {users.describe()}; what was read of it may not fit together",)
            return _result(plan, base, dry_run=options.dry_run, notes=notes if users.busy else ())
        edit = EditOptions(
            partition=partition,
            offset=offset,
            on_signatures=options.on_signatures,
            require_lock=options.require_lock,
            stamp=options.stamp,
        )
        with edit_image(name, edit) as session:
            plan = normalize_filesystem(session.filesystem, base, observe=observe)
        return _result(plan, base, locked=session.locked, notes=session.notes, dropped=session.dropped)


def normalize_filesystem(
    filesystem: WritableFilesystem, base: FileTree[Any] | None, *, observe: Observer | None = None
) -> MarkPlan[int, Any]:
    """Normalize the marks of an open filesystem; return what was changed. The caller commits it."""
    planner = _planner(filesystem, base)
    plan = planner.plan()
    writer = MarkWriter(filesystem, planner.top)
    # Without a base an opaque directory gets its marks before whiteouts below it go; with one, whiteouts below it come first.
    for directory in plan.directories if base is None else reversed(plan.directories):
        marks = planner.marks(directory)
        writer.write(directory.node, marks)
        if observe is not None:
            observe(directory.path, marks)
    return plan


def _planner(tree: FileTree[int], base: FileTree[Any] | None) -> MarkPlanner[int, Any]:
    return MarkPlanner(tree, upper_directory(tree).root, base)


def _result(plan: MarkPlan[int, Any], base: FileTree[Any] | None, **known: Any) -> NormalizeResult:
    return NormalizeResult(
        converted=plan.converted,
        hidden=plan.hidden,
        opened=plan.opened,
        marked=plan.marked,
        removed=plan.removed,
        opaque=plan.opaque,
        problems=tuple(plan.problems),
        problem_count=plan.problem_count,
        unchanged=not plan.directories,
        has_base=base is not None,
        **known,
    )


@contextmanager
def open_base(name: str, partition: str | None, options: NormalizeOptions) -> Iterator[FileTree[Any] | None]:
    """Open the merged layers below the overlay in the image ``name``; None if they are not known.

    ``partition``: of the overlay, in a SIF. Raises UsageError for options that contradict each other, and what
    ``open_container`` does.
    """
    base = options.base
    if partition is not None and base is not None:
        raise UsageError(f"{show(name)} is a SIF image, whose overlay has its root below", hint="leave out --base")
    if partition is None and base is None:
        if options.overlays:
            raise UsageError("--overlay is a layer above a base, and there is none", hint="give --base IMAGE.sif, too")
        yield None
        return
    overlays = [replace(overlay, read_only=True) for overlay in options.overlays]  # so that their order is the given one
    with open_container(name if base is None else base, overlays=overlays, subject=name) as container:
        layers = container.layers
        if base is None:
            assert partition is not None
            layers = _layers_below(name, partition, layers)
        elif layers[0].kind == "ext3" and is_overlay(layers[0].tree):
            text = f"{show(os.fsdecode(base))} is an overlay, not the image of a container"
            raise UsageError(text, hint="give the image that the overlay is used with: --base IMAGE.sif")
        trees = [layer.tree for layer in layers]
        if len(container.layers) == 1 and layers[0].kind != "directory":
            trees = [LayerTree(trees[0], trees[0].root, name=layers[0].name, hint=layers[0].filesystem.check_hint)]
        yield UnionTree(trees)


def _layers_below(name: str, partition: str, layers: tuple[ContainerLayer, ...]) -> tuple[ContainerLayer, ...]:
    """Return the layers below an overlay in a SIF: of those in the image the ones before it, and those that are given."""
    with open_sif(name) as (sif, _):
        own = select_partition(sif, partition, name).id
    ids = [None if layer.is_given else layer.filesystem.object_id for layer in layers]
    end = ids.index(own) if own in ids else len(layers)
    return tuple(layer for number, layer in enumerate(layers) if number < end or layer.is_given)

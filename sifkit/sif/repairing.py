"""Repair of findings that can be repaired in only one way. Objects are not changed, except for an unknown architecture.

The order is that of edits: descriptors through a second table, then the header in one write, then bytes that belong to no
object. Each step may be interrupted and repeated.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable
from contextlib import ExitStack

from ext3.hostio import HostPath

from .checking import check
from .commit import Growth, commit_switch
from .errors import NotWritableError
from .finding import Finding, Problem
from .format.descriptor import DESCRIPTOR_BYTES, join_group
from .format.placement import MAX_OFFSET, data_end
from .format.schema import DESCRIPTOR
from .format.types import Arch
from .gaps import unowned_spans
from .image import SIF
from .select import primary
from .state import State, truncated_arch
from .store import Store

__all__ = ["repair"]

IN_TABLE = {Problem.GROUP, Problem.PADDING, Problem.PARTITION_ARCH}
"""Problems whose repair changes descriptors."""
IN_GAPS = {Problem.STALE_BYTES, Problem.MISPLACED_SUPERBLOCK, Problem.TRAILING_BYTES}
"""Problems of bytes that belong to no object."""


def repair(image: HostPath | SIF, findings: Iterable[Finding], *, cut_trailing: bool = False) -> list[Finding]:
    """Repair those of ``findings`` (from ``check`` or ``check_file``) that are repairable, and return them.

    ``cut_trailing``: also truncate the file after the last object. An open image must be open for writing. Opening for writing
    makes its own repairs. Without repairable findings the file is not opened. Raises the errors of ``SIF.open``,
    NotWritableError, StoreError.
    """
    wanted = [f for f in findings if f.repairable and (cut_trailing or f.problem is not Problem.TRAILING_BYTES)]
    if not wanted:
        return []
    with ExitStack() as stack:
        sif = image if isinstance(image, SIF) else stack.enter_context(SIF.open(os.fspath(image), "r+"))
        if sif.mode == "r":
            raise NotWritableError("the image is open read-only", path=sif.path, hint='open it with mode "r+"')
        problems = {finding.problem for finding in wanted}
        # In a truncated image descriptors are not changed: there is no place for a second table.
        store, state, _ = sif._begin(complete=bool(problems & IN_TABLE))
        with sif._reload_on_error():
            state = _repair_table(store, state, wanted)
            sif._adopt(state)
            _repair_header(store, state, problems)
            if problems & IN_GAPS:
                _repair_gaps(store, state, problems)
            sif._adopt(state if Problem.TABLE_SIZE not in problems else _with_table_size(state))
        left = {(finding.problem, finding.slot, finding.offset) for finding in check(sif)}
    return [finding for finding in wanted if (finding.problem, finding.slot, finding.offset) not in left]


def _repair_table(store: Store, state: State, wanted: Iterable[Finding]) -> State:
    table = bytearray(state.table)
    by_slot = {descriptor.slot: descriptor for descriptor in state.descriptors}
    root = primary(state.descriptors)
    ends = sorted(descriptor.end for descriptor in state.descriptors if descriptor.size)
    for finding in wanted:
        descriptor = by_slot.get(finding.slot)
        if descriptor is None or finding.problem not in IN_TABLE:
            continue
        start = descriptor.slot * DESCRIPTOR_BYTES
        fields = DESCRIPTOR.read(table, start)
        if finding.problem is Problem.GROUP:
            fields["GroupID"] = join_group(descriptor.group)
        elif finding.problem is Problem.PARTITION_ARCH:
            arch = truncated_arch(descriptor, state.header, root)
            if arch is not None and descriptor.partition is not None:
                fields["Extra"] = descriptor.partition._replace(arch=arch).pack_onto(descriptor.extra)
        elif descriptor.size_with_padding < descriptor.size:
            fields["SizeWithPadding"] = min(MAX_OFFSET, descriptor.size + _gap_before(state, ends, descriptor.offset))
        table[start : start + DESCRIPTOR_BYTES] = DESCRIPTOR.build(fields)
    if table == state.table:
        return state
    new = State.of(state.header, bytes(table))
    root = primary(new.descriptors)
    if root is not None and isinstance(root.arch, Arch):
        new = new._replace(header=new.header._replace(arch=root.arch))
    with Growth(store, None) as growth:
        commit_switch(store, state, new, growth, size_after=store.size)
    return new


def _gap_before(state: State, ends: list[int], offset: int) -> int:
    """Return the gap before ``offset``, after the last object before it or the start of the data. ``ends``: sorted."""
    before = bisect_right(ends, offset)
    return max(0, offset - max(state.header.data_offset, ends[before - 1] if before else 0))


def _with_table_size(state: State) -> State:
    return state._replace(header=state.header._replace(descriptors_size=state.header.table_bytes))


def _repair_header(store: Store, state: State, problems: set[Problem]) -> None:
    if Problem.TABLE_SIZE in problems:
        store.write(0, _with_table_size(state).header.pack())
        store.sync()


def _repair_gaps(store: Store, state: State, problems: set[Problem]) -> None:
    end = data_end(state.header, state.descriptors)
    if problems & (IN_GAPS - {Problem.TRAILING_BYTES}):
        hidden = state.header.descriptors_size > state.header.table_bytes and Problem.TABLE_SIZE not in problems
        for begin, size in unowned_spans(state.header, state.descriptors, min(store.size, end)):
            if not (hidden and begin == state.header.table_end):
                store.make_zero(begin, size)
    if Problem.TRAILING_BYTES in problems and store.size > end:
        store.set_size(end)
    store.sync()

"""Random operations on a small tree of names, as hypothesis strategies."""

from __future__ import annotations

from hypothesis import strategies as st

from .filesystem_model import Operation

__all__ = ["operations"]

NAMES = st.sampled_from(["a", "b", "c", "d" * 60, "e" * 200])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
OFFSETS = st.one_of(st.integers(0, 5000), st.integers(0, 400_000), st.sampled_from([1024, 4096, 12288, 12 * 1024, 268 * 1024]))
DATA = st.one_of(
    st.binary(min_size=1, max_size=50),
    st.builds(lambda byte, size: bytes((byte,)) * size, st.integers(1, 255), st.integers(1, 40_000)),
)
# ".." never leads above the root: there an image ends, and a directory of the host does not.
TARGETS = st.one_of(st.sampled_from(["a", "b/c", "b/../a", "none"]), st.integers(50, 300).map(lambda size: "t" * size))


def operations() -> st.SearchStrategy[Operation]:
    """One operation. Paths collide often, so that much of it fails, or replaces something."""
    return st.one_of(
        st.tuples(st.just("mkdir"), PATHS),
        st.tuples(st.just("create"), PATHS),
        st.tuples(st.just("create"), PATHS),
        st.tuples(st.just("write"), PATHS, OFFSETS, DATA),
        st.tuples(st.just("write"), PATHS, OFFSETS, DATA),
        st.tuples(st.just("truncate"), PATHS, OFFSETS),
        st.tuples(st.just("punch"), PATHS, OFFSETS, OFFSETS),
        st.tuples(st.just("symlink"), TARGETS, PATHS),
        st.tuples(st.just("link"), PATHS, PATHS),
        st.tuples(st.just("unlink"), PATHS),
        st.tuples(st.just("rmdir"), PATHS),
        st.tuples(st.just("rename"), PATHS, PATHS),
        st.tuples(st.just("rename"), PATHS, PATHS),
        st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o600, 0o755, 0o1777])),
        st.tuples(st.just("utimens"), PATHS, st.integers(0, 2**33 * 10**9), st.integers(0, 2**33 * 10**9)),
    )

"""Images unpacked into the cache, for hosts without FUSE: the merged layers as one tree of files of the caller's.

A forked process unpacks: what it imports may start threads, and the process that makes a user namespace has none. Set-id bits,
devices and all xattrs but the user's are left out: no container of a plain user honours them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, NoReturn

from ext3 import hostio
from ext3.progress import Progress

from ...errors import HostFullError, SifkitError, TargetError, counted, human, shell_quote, show
from .. import sys
from ..errors import LaunchError, failed_call
from ..planning.run_plan import Layer
from .image_digest import OpenImage
from .unpacked_cache import CachedTree, UnpackedCache

if TYPE_CHECKING:
    from ...vfs.file_tree import FileTree

__all__ = ["Notify", "ProgressOf", "unpack_alone", "unpacked_root"]

Notify = Callable[[str], None]
ProgressOf = Callable[[], AbstractContextManager[Progress]]
FORM = b"sifkit 1\n"
"""Changes whenever the same images are unpacked into other files."""
MOST_TRIES = 3
SECTOR, BLOCK = 512, 4096
ROOM = "set APPTAINER_CACHEDIR to a directory with more room, or remove what is not needed there: see sifkit doctor"


def unpacked_root(cache: UnpackedCache, layers: Sequence[Layer], until: ExitStack, notify: Notify, progress: ProgressOf) -> str:
    """Return the directory of the merged layers, all of them images, unpacked at most once, and kept until ``until`` is closed.

    Raises LaunchError and OSError.
    """
    cache.remove_unfinished()
    key = _known_key(cache, layers)
    for _ in range(MOST_TRIES):
        root = None if key is None else cache.use(key, until)
        if root is not None:
            return root
        key = _in_child(lambda: _unpack_once(cache, layers, notify, progress))
    raise LaunchError(f"what is unpacked in {show(cache.path)} is removed by others again and again")


def _known_key(cache: UnpackedCache, layers: Sequence[Layer]) -> str | None:
    """Return the key of layers whose digests are remembered; None if one is not."""
    with ExitStack() as opened:
        digests = [cache.digest(_open_image(layer, opened).name) for layer in layers]
    known = [digest for digest in digests if digest is not None]
    return _key(layers, known) if len(known) == len(layers) else None


def unpack_alone(cache: UnpackedCache, layers: Sequence[Layer], place: str, notify: Notify, progress: ProgressOf) -> str:
    """Unpack merged layers, directories of the host among them, at ``place``, for one run. Raises as ``unpacked_root``."""

    def unpack() -> str:
        with progress() as bar:
            _extract(cache, layers, place, notify, bar, is_kept=False)
        return f"{place}/root"

    return _in_child(unpack)


def _open_image(layer: Layer, opened: ExitStack) -> OpenImage:
    image = OpenImage(layer)
    opened.callback(image.close)
    return image


def _key(layers: Sequence[Layer], digests: Sequence[str]) -> str:
    """Return the key of merged layers with these digests."""
    found = hashlib.sha256(FORM)
    for layer, digest in zip(layers, digests, strict=True):
        found.update(f"{digest} {layer.kind} {layer.subdirectory!r}\n".encode("utf-8", "backslashreplace"))
    return found.hexdigest()


def _unpack_once(cache: UnpackedCache, layers: Sequence[Layer], notify: Notify, progress: ProgressOf) -> str:
    """Unpack, unless another process has done it by now; return the key."""
    with ExitStack() as opened:
        bar = opened.enter_context(progress())
        images = [_open_image(layer, opened) for layer in layers]
        key = _key(layers, _digests(cache, images, bar))
        with cache.locked(key, notify):
            if cache.find(key) is not None:
                return key
            with cache.new_tree(key) as place:
                size = _extract(cache, layers, place, notify, bar, is_kept=True)
                for image in images:
                    _check_unchanged(image)
                name = ", ".join(show(layer.name) for layer in layers)
                cache.add(place, CachedTree(key, name, size))
        return key


def _digests(cache: UnpackedCache, images: Sequence[OpenImage], progress: Progress) -> list[str]:
    found = [cache.digest(image.name) for image in images]
    missing = [number for number, digest in enumerate(found) if digest is None]
    if missing:
        progress.phase("read", sum(images[number].size for number in missing), "bytes")
    for number in missing:
        image = images[number]
        found[number] = digest = image.digest(progress)
        _check_unchanged(image)
        if image.is_settled():
            cache.remember_digest(image.name, digest)
    progress.done()
    return [digest or "" for digest in found]


def _check_unchanged(image: OpenImage) -> None:
    if not image.is_unchanged():
        raise LaunchError(f"{show(image.layer.name)} was changed while it was unpacked", hint="try again")


def _extract(
    cache: UnpackedCache, layers: Sequence[Layer], place: str, notify: Notify, progress: Progress, *, is_kept: bool
) -> int:
    """Unpack merged layers at ``place``/root; return the bytes that they take."""
    from ...vfs.extracting import extract
    from .plain_tree import PlainTree
    from .served_layers import merged_layers

    layered = merged_layers(layers)
    tree: PlainTree[Any] = PlainTree(layered, layered.root)
    size, inodes = _needed(tree)
    name = show(layers[0].name) if len(layers) == 1 else f"{show(layers[0].name)} with its overlays"
    _check_room(cache.path, name, size, inodes)
    once = "" if is_kept else ", for this run alone"
    notify(f"{name} is unpacked in {show(cache.path)}{once}: {human(size)}")
    try:
        made = extract(tree, f"{place}/root", owners=False, devices=False, progress=progress)
    except (HostFullError, TargetError) as error:
        if error.errno not in hostio.FULL:
            raise
        raise _no_room(cache.path, name, size, error) from error
    if made.failed:
        path, reason = made.problems[0]
        text = f"{counted(made.failed, 'file')} of {name} cannot be unpacked: {show(path)}: {reason}"
        if is_kept:
            raise LaunchError(text, hint=f"check it with: sifkit check {shell_quote(layers[0].path)}")
        notify(text)
    if made.specials_left:
        notify(f"{counted(made.specials_left, 'device')} of {name} cannot be unpacked by a plain user")
    return size


def _needed(tree: FileTree[Any]) -> tuple[int, int]:
    """Return the bytes and the inodes that a tree takes on the host."""
    from ...vfs.walk import walk

    size = inodes = 0
    seen: set[tuple[int, int]] = set()
    for _, row, _, _ in walk(tree, tree.root, on_problem=lambda *_: None):
        found = row.stat
        if found is None or isinstance(found, OSError) or (found.dev, found.ino) in seen:
            continue
        if found.links > 1 and not stat.S_ISDIR(found.mode):
            seen.add((found.dev, found.ino))
        inodes += 1
        size += -(-found.blocks * SECTOR // BLOCK) * BLOCK if stat.S_ISREG(found.mode) else BLOCK
    return size, inodes


def _check_room(path: str, name: str, size: int, inodes: int) -> None:
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    if size > free:
        raise LaunchError(f"no space left in {show(path)}: {name} takes {human(size)}, {human(free)} are free", hint=ROOM)
    if found.f_files and inodes > found.f_favail:
        raise LaunchError(f"no inodes left in {show(path)}: {name} takes {inodes:,}, {found.f_favail:,} are free", hint=ROOM)


def _no_room(path: str, name: str, size: int, error: TargetError) -> LaunchError:
    reason = os.strerror(error.errno or errno.ENOSPC)
    return LaunchError(f"{show(path)}: {reason}: {name} takes about {human(size)}", hint=ROOM)


def _in_child(work: Callable[[], str]) -> str:
    """Return what ``work`` returns in a forked process. Raises LaunchError with the message of its error."""
    report, answer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = sys.fork()
    if pid == 0:
        os.close(report)
        _work(work, answer, parent)
    os.close(answer)
    try:
        with open(report, "rb") as file:
            message = file.read()
    except BaseException:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
        raise
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not message:
        ended = f"by signal {-code}" if code < 0 else f"with code {code}"
        raise LaunchError(f"the process that unpacks the image was ended {ended}")
    found = json.loads(message)
    if "found" in found:
        return str(found["found"])
    raise LaunchError(found["error"], hint=found["hint"])


def _end(number: int, frame: object) -> None:
    """Let what is unfinished be removed."""
    raise KeyboardInterrupt


def _work(work: Callable[[], str], answer: int, parent: int) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGTERM, _end)
        sys.set_parent_death_signal(signal.SIGTERM)
        if os.getppid() == parent:  # else it has died before
            _answer(answer, {"found": work()})
            code = 0
    except KeyboardInterrupt:
        pass
    except Exception as error:  # noqa: BLE001 - the parent reports it
        if isinstance(error, OSError) and not isinstance(error, SifkitError):
            error = failed_call("the image cannot be unpacked", error)
        text = error.message if isinstance(error, SifkitError) else f"internal error: {type(error).__name__}: {error}"
        hint = error.hint if isinstance(error, SifkitError) else ""
        _answer(answer, {"error": text, "hint": hint})
    finally:
        os._exit(code)


def _answer(answer: int, found: Mapping[str, str]) -> None:
    """Write an answer for the parent. A path in a hostile image may be longer than a pipe takes at once."""
    with open(answer, "wb") as file:
        file.write(json.dumps(found).encode())

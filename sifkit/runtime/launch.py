"""Launch of a plan: this process mounts the root in a mount namespace of its own, runs the command there and waits for it.

It changes the namespaces of the calling process, which does nothing else afterwards and has a single thread. With its death the
kernel ends the command and removes all mounts.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, closing
from errno import EINVAL, ENOSYS, EPERM
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from . import sys
from .container.container_facts import mounts_with_accounts
from .container.container_mounts import add_mount_points, enter_root, mount_all, mounts_in_written_root, with_image_sources
from .container.container_process import run_in_container
from .errors import failed_call
from .images.image_files import ImageFiles
from .layers.session import Session, mount_session, unused_directory
from .planning.run_plan import DataImage, Layer, RunPlan, Start

if TYPE_CHECKING:
    from .layers.kernel_layers import KernelLayers
    from .layers.served_layers import ServedLayers
    from .layers.unpacking import ProgressOf

__all__ = ["launch"]

Notify = Callable[[str], None]
StartOf = Callable[[RunPlan, str], Start]
Ids = tuple[int, int]
"""User and group."""
USUAL_UMASK = 0o022
"""Mask for directories that a run makes, as upper/ in an overlay, which is the container's / for all users."""
_CLONE_FLAGS = {"pid": sys.CLONE_NEWPID, "ipc": sys.CLONE_NEWIPC, "uts": sys.CLONE_NEWUTS, "net": sys.CLONE_NEWNET}


def launch(plan: RunPlan, *, start_of: StartOf, notify: Notify, progress: ProgressOf | None = None) -> int:
    """Carry out a plan; return the exit code of its command.

    ``start_of``: gives the command's words and environment, from the plan and the directory of the mounted root; it is called
    in the child. ``notify``: is given one line per note. ``progress``: shows how far an image is unpacked. Raises LaunchError,
    ImageInUseError and OSError.
    """
    sys.keep_exit_codes()
    umask = os.umask(USUAL_UMASK)
    size_limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_limits[1], size_limits[1]))  # an image is larger than the files in it

    def start(found: RunPlan, root: str) -> Start:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_FSIZE, size_limits)
        return start_of(found, root)

    try:
        with closing(ImageFiles(notify)) as images:
            return _Launch(images, start, notify, progress).carry_out(plan)
    finally:
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_FSIZE, size_limits)


class _Launch(NamedTuple):
    """Launch in one of the ways of a plan. ``images``: those that are open and locked. The rest is as of ``launch``."""

    images: ImageFiles
    start_of: StartOf
    notify: Notify
    progress: ProgressOf | None

    def carry_out(self, plan: RunPlan) -> int:
        """Open the images of a plan, and carry it out in its way; return the exit code."""
        if plan.is_root_writable:
            return self._in_directory(plan)
        # before any namespace is made: from inside, the processes that use an image cannot be seen
        if plan.way == "root":
            needs_view = self.images.open(plan.layers, plan.upper, for_kernel=True)
            served = self.images.open_data(plan.images, for_kernel=True)
            return self._as_root(plan, served, needs_view=needs_view)
        self.images.open(plan.layers, plan.upper, for_kernel=False)
        self.images.open_data(plan.images, for_kernel=False)
        return self._as_user(plan) if plan.way in ("user", "view") else self._unpacked(plan)

    def _as_root(self, plan: RunPlan, served_images: Collection[DataImage], *, needs_view: bool) -> int:
        """Run in mounts of the kernel. What it would not show as it is meant is served: the layers, or data images."""
        session = _root_session(plan)
        layers = self._kernel_layers(session)
        if not needs_view and not served_images:
            return self._run_in_layers(plan, plan.layers, session, layers)
        served = self._served_layers(session, None)
        try:
            plan = _with_images(plan, served.add_image, served_images)
            parts = [Layer(path=served.view(plan.layers, ()), kind="directory")] if needs_view else plan.layers
            code = self._run_in_layers(plan, parts, session, layers)
            served.note_faults()
            return code
        finally:
            served.root_device = layers.root_device
            served.close()

    def _as_user(self, plan: RunPlan) -> int:
        """Run in a user namespace, in layers that are served; directories are mounted above them."""
        merged = len(plan.layers)
        if any(layer.kind == "directory" for layer in plan.layers):
            from .layers.directory_layers import merged_count

            merged = merged_count(plan.layers, joins=plan.joins_directories, writes=plan.upper is not None)
        session = _user_session(plan)
        served = self._served_layers(session, _inner_ids(plan))
        try:
            if plan.upper is not None and plan.upper.kind == "image":
                served.start_image(plan.upper)  # first: what it imports takes longer than all the rest
            plan = _with_images(plan, served.add_image)
            if merged < len(plan.layers):
                code = self._run_above_directories(plan, merged, session, served)
            else:
                view = served.view(plan.layers, plan.mounts)
                if plan.upper is not None:
                    view = served.add_upper(view, plan.upper)
                code = self._run(plan, view, session)
            served.note_faults()
            return code
        finally:
            served.close()

    def _unpacked(self, plan: RunPlan) -> int:
        """Run in directories of the host; images are unpacked before, outside of all namespaces."""
        from .layers.unpacked_layers import UnpackedLayers

        joins = plan.joins_directories
        with closing(UnpackedLayers(plan.layers, plan.cache, self.notify, self.progress, joins=joins)) as unpacked:
            parts = unpacked.directories()
            if not plan.serves_images:
                plan = _with_images(plan, unpacked.add_image)
            session = _user_session(plan, parts)
            layers = self._kernel_layers(session, in_user_namespace=True)
            run = partial(self._run_in_layers, parts=parts, session=session, layers=layers)
            return self._run_with_served(plan, plan.images, session, layers, _inner_ids(plan), run)

    def _in_directory(self, plan: RunPlan) -> int:
        """Run in a directory of the host that is written to itself. Mount points that it lacks are not made."""
        unshown = self.images.open_data(plan.images, for_kernel=plan.way == "root")
        if plan.way == "root":
            return self._run_in_directory(plan, unshown, _root_session(plan), None)
        with ExitStack() as unpacking:
            if not plan.serves_images:
                from .layers.unpacked_layers import UnpackedLayers

                unpacked = unpacking.enter_context(closing(UnpackedLayers((), plan.cache, self.notify, self.progress)))
                plan = _with_images(plan, unpacked.add_image)
            return self._run_in_directory(plan, plan.images, _user_session(plan), _inner_ids(plan))

    def _kernel_layers(self, session: Session, *, in_user_namespace: bool = False) -> KernelLayers:
        from .layers.kernel_layers import KernelLayers

        return KernelLayers(session.path, self.images, self.notify, in_user_namespace=in_user_namespace)

    def _served_layers(self, session: Session, owner: Ids | None) -> ServedLayers:
        from .layers.served_layers import ServedLayers

        return ServedLayers(session, owner, self.images, self.notify)

    def _run_in_layers(
        self,
        plan: RunPlan,
        parts: Sequence[Layer],
        session: Session,
        layers: KernelLayers,
        upper: tuple[str, str] | None = None,
    ) -> int:
        """Run in layers that the kernel mounts and joins. It mounts the data images, too, that are left.

        ``parts``: the layers, or the directories that show them. ``upper``: directories of the writable layer, if it is
        mounted already.
        """
        with closing(layers):
            plan = _with_images(plan, layers.add_image)
            directories = [layers.add_layer(layer) for layer in parts]
            if plan.upper is not None and upper is None:
                upper = layers.add_upper(plan.upper)
            if not plan.joins_directories:
                return self._run(plan, _underlay(plan, directories[0], layers.new_point()), session)
            above = [] if upper is None else [upper[0]]
            with layers.joined(directories + above) as view:
                if add_mount_points(view, session.points, plan.mounts):
                    directories.insert(1, session.points)
            return self._run(plan, layers.join(directories, upper, plan.upper), session)

    def _run_above_directories(self, plan: RunPlan, merged: int, session: Session, served: ServedLayers) -> int:
        """Run in layers of which the highest are directories, which the kernel joins to the view of the others."""
        from .layers.writable_layer import upper_directories

        parts = list(plan.layers[merged:])
        if merged:
            parts.insert(0, Layer(path=served.view(plan.layers[:merged], ()), kind="directory"))
        upper = None
        if plan.upper is not None and plan.upper.kind == "image":
            upper = upper_directories(served.await_image(plan.upper), plan.upper)
        layers = self._kernel_layers(session, in_user_namespace=True)
        try:
            return self._run_in_layers(plan, parts, session, layers, upper)
        finally:
            served.root_device = layers.root_device

    def _run_in_directory(
        self, plan: RunPlan, served_images: Collection[DataImage], session: Session, owner: Ids | None
    ) -> int:
        layers = self._kernel_layers(session)

        def run(found: RunPlan) -> int:
            with closing(layers):
                found = _with_images(found, layers.add_image)
                view = layers.add_writable_directory(found.layers[0])
                found = found._replace(mounts=tuple(mounts_in_written_root(view, found.mounts, found.home)))
                return self._run(found, view, session)

        return self._run_with_served(plan, served_images, session, layers, owner, run)

    def _run_with_served(
        self,
        plan: RunPlan,
        served_images: Collection[DataImage],
        session: Session,
        layers: KernelLayers,
        owner: Ids | None,
        run: Callable[[RunPlan], int],
    ) -> int:
        """Call ``run`` with a plan of whose data images some are served; return its exit code."""
        if not served_images:
            return run(plan)
        served = self._served_layers(session, owner)
        try:
            code = run(_with_images(plan, served.add_image, served_images))
            served.note_faults()
            return code
        finally:
            served.root_device = layers.root_device
            served.close()

    def _run(self, plan: RunPlan, root: str, session: Session) -> int:
        """Run the command of a plan in a mounted root."""

        def enter() -> Start:
            _new_namespace(sys.CLONE_NEWNS)
            sys.mount(None, "/", None, sys.MS_REC | sys.MS_SLAVE)
            sys.bind(root, root, recursive=True)  # a root of one layer may be no mount itself; pivot_root needs one
            mount_all(root, session.files, mounts_with_accounts(plan, root), self.notify, makes_missing=plan.upper is not None)
            if "ipc" in plan.namespaces:
                _leave_keyring(self.notify)
            if plan.hostname is not None:
                sys.set_hostname(plan.hostname)
            start = self.start_of(plan, root)
            enter_root(root)
            if plan.umask is not None:
                os.umask(plan.umask)
            return start

        flags = sum(flag for name, flag in _CLONE_FLAGS.items() if name in plan.namespaces)
        if flags:
            _unshare(flags)
        if "net" in plan.namespaces:
            sys.set_interface_up("lo")
        return run_in_container(
            enter,
            cwd=plan.cwd,
            pid_namespace="pid" in plan.namespaces,
            has_init=plan.has_init,
            no_new_privileges=plan.no_new_privileges,
            before_exec=_last_steps(plan, self.notify),
        )


def _leave_keyring(notify: Notify) -> None:
    """Leave the keys of the caller's session, which are no part of an IPC namespace but pass secrets between processes, too."""
    try:
        sys.join_new_keyring()
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):  # no keys on this host, or a filter for all processes here and in the container
            notify(f"the keys of your session can be used in the container: {error.strerror}")


def _with_images(plan: RunPlan, add_image: Callable[[DataImage], str], images: Collection[DataImage] | None = None) -> RunPlan:
    """Return a plan whose mounts have sources in data images, of those that are left or of ``images``, which are added."""
    directories = {image: add_image(image) for image in (plan.images if images is None else images)}
    left = tuple(image for image in plan.images if image not in directories)
    return plan._replace(images=left, mounts=with_image_sources(plan.mounts, directories))


def _underlay(plan: RunPlan, directory: str, point: str) -> str:
    """Return where a directory is with all mount points of a plan, without overlayfs."""
    from .layers.underlay import mount_underlay

    try:
        return point if mount_underlay(directory, point, plan.mounts) else directory
    except OSError as error:
        raise failed_call("the mount points of the container cannot be made", error) from error


def _root_session(plan: RunPlan) -> Session:
    """Mount a session in a new mount namespace."""
    place = unused_directory(_used_paths(plan))
    _new_namespace(sys.CLONE_NEWNS)
    return mount_session(place)


def _user_session(plan: RunPlan, parts: Sequence[Layer] = ()) -> Session:
    """Mount a session in a new user namespace. ``parts``: directories that it must not hide."""
    place = unused_directory([*_used_paths(plan), *(part.path for part in parts)])
    uid, gid = os.getuid(), os.getgid()
    inner = _inner_ids(plan)
    _new_namespace(sys.CLONE_NEWUSER | sys.CLONE_NEWNS, maps=lambda: _map_ids(uid, gid, inner))
    if inner[0] == 0 and "pid" in plan.namespaces:
        # where no new /proc can be mounted, root of the container sees this process and its servers, which have the host's root
        sys.clear_dumpable()
    return mount_session(place)


def _inner_ids(plan: RunPlan) -> Ids:
    """Return user and group in the user namespace."""
    return (0, 0) if plan.fakeroot else (os.getuid(), os.getgid())


def _map_ids(uid: int, gid: int, inner: tuple[int, int]) -> None:
    try:
        sys.write_id_maps(uid, gid, inner_uid=inner[0], inner_gid=inner[1])
    except OSError as error:
        raise failed_call("the user cannot be mapped into a user namespace", error) from error


def _last_steps(plan: RunPlan, notify: Notify) -> Callable[[], None] | None:
    """Return what the command's process does before it becomes the command, with all imported that it needs."""
    if plan.drops_capabilities:
        return sys.drop_capabilities
    if not plan.fakeroot:
        return None
    from .container.seccomp import answer_as_root

    def steps() -> None:
        try:
            answer_as_root()
        except OSError as error:
            notify(f"--fakeroot: changes of owners and users fail, as there are no seccomp filters here: {error.strerror}")

    return steps


def _new_namespace(flags: int, *, maps: Callable[[], None] | None = None) -> None:
    """Unshare the mount namespace: mounts of the host still arrive, none of ours goes there. ``maps``: maps ids before."""
    _unshare(flags)
    if maps is not None:
        maps()
    try:
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_SLAVE)
    except OSError as error:
        hint = "/ is no mount here: after chroot(2), bind its directory to itself before it" if error.errno == EINVAL else ""
        raise failed_call("the mounts of the host cannot be kept apart", error, hint=hint) from error


def _unshare(flags: int) -> None:
    try:
        sys.unshare(flags)
    except OSError as error:
        raise failed_call("the namespaces of the container cannot be made", error) from error


def _used_paths(plan: RunPlan) -> list[str]:
    """Return the paths of the host that a run needs after the session is mounted."""
    paths = [layer.path for layer in (*plan.layers, *plan.images)] + [mount.source for mount in plan.mounts if mount.source]
    if plan.upper is not None and plan.upper.path:
        paths.append(plan.upper.path)
    return [path for path in paths if path != "/"] + [os.__file__, __file__]

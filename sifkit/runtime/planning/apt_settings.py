"""Setting of apt for ``--fakeroot``: it downloads as root. Pure.

apt downloads as the user ``_apt``, and gives up if its process is not that user after the change (``DropPrivileges`` in apt's
``fileutl.cc``; apt 2.6, 3.3). A file that sets APT::Sandbox::User is mounted where the container has apt; nothing is stored.
"""

from __future__ import annotations

from typing import NamedTuple

from ...errors import shell_quote, show
from .environment import LIBRARY_PATH
from .request import RunRequest
from .run_plan import Mount

__all__ = ["AptSettings", "apt_settings"]

DIRECTORY = "/etc/apt/apt.conf.d"
NAME = "99fakeroot"
"""The last one, so that it holds."""
SETTINGS = b'// --fakeroot: there is no other user to change to\nAPT::Sandbox::User "root";\n'
VARIABLE = "APT_CONFIG"


class AptSettings(NamedTuple):
    """Mounts, variables and notes that make apt work."""

    mounts: tuple[Mount, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def apt_settings(request: RunRequest, *, is_root_writable: bool) -> AptSettings:
    """Return the settings of a run with ``--fakeroot``.

    A directory that is written to itself gets no new mount points: the file lies in that of the host's libraries, which
    images of Apptainer have.
    """
    if not is_root_writable:
        return AptSettings((_file(DIRECTORY, NAME, needs=DIRECTORY),))
    root = request.image.path.rstrip("/")
    if request.kind_of(root + DIRECTORY) != "directory":
        return AptSettings()
    if request.kind_of(root + LIBRARY_PATH) == "directory":
        memory = Mount(kind="tmpfs", target=LIBRARY_PATH, size=1 << 20)
        return AptSettings((memory, _file(LIBRARY_PATH, NAME)), ((VARIABLE, f"{LIBRARY_PATH}/{NAME}"),))
    if request.kind_of(f"{root}{DIRECTORY}/{NAME}") == "file":
        return AptSettings()
    line = shell_quote('APT::Sandbox::User "root";')
    file = shell_quote(f"{root}{DIRECTORY}/{NAME}")
    return AptSettings(notes=(f"--fakeroot: for apt in {show(root)} write once: echo {line} >{file}",))


def _file(directory: str, name: str, *, needs: str = "") -> Mount:
    target = f"{directory}/{name}"
    return Mount(kind="bind", target=target, content=SETTINGS, mode=0o644, needs=needs, is_optional=True)

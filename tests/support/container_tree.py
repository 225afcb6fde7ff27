"""A small container with every kind of metadata that ``inspect`` shows, as a directory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["METADATA_FILES", "write_container"]

METADATA_FILES = {
    ".singularity.d/labels.json": '{"Version": "v1 \\"q\\" <&> \u00e9", "Author": "alice"}\n',
    ".singularity.d/runscript": '#!/bin/sh\n\n\techo "$@" \x01\x7f\x08\u2028\n\n\n',
    ".singularity.d/startscript": "#!/bin/sh\nsleep 1",
    ".singularity.d/runscript.help": "  Help.\n",
    ".singularity.d/Singularity": "Bootstrap: scratch\n\n%help\n  Help.\n",
    ".singularity.d/env/01-base.sh": "not shown\n",
    ".singularity.d/env/10-docker2singularity.sh": "export A=1\n",
    ".singularity.d/env/90-environment.sh": "export FOO=bar\n",
    ".singularity.d/env/91-environment.sh": "",
    ".singularity.d/env/99-base.sh": "not shown\n",
    "scif/apps/foo/scif/labels.json": '{"SCIF_APP_NAME": "foo"}',
    "scif/apps/foo/scif/runscript": "#!/bin/sh\necho foo\n",
    "scif/apps/foo/scif/test": "#!/bin/sh\ntrue\n",
    "scif/apps/foo/scif/env/01-base.sh": "not shown\n",
    "scif/apps/foo/scif/env/90-environment.sh": "export FOOENV=1\n",
    "scif/apps/bar/scif/runscript.help": "Help of bar.\n",
    "scif/apps/no-app/file": "",
}


def write_container(top: Path) -> Path:
    """Write the container into the directory ``top``, which is made. Its test script is a symlink."""
    for name, text in METADATA_FILES.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() + (b"\xff\n" if name.endswith("d/runscript") else b""))
    (top / ".singularity.d" / "test").symlink_to("/.singularity.d/env/90-environment.sh")
    return top

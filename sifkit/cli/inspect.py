"""``sifkit inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError, show
from .support.console import JSON_SCHEMA, Console
from .support.failures import errors_about
from .support.frame import verb

if TYPE_CHECKING:
    from ..overlay.view.container_metadata import AppMetadata, ContainerMetadata
    from ..overlay.view.inspecting import InspectRequest

__all__ = ["command"]

TEXTS = ("runscript", "startscript", "test", "helpfile")
"""Attributes that are texts, in the order in which they are printed."""
NOUNS = {
    "labels": "labels",
    "deffile": "definition file",
    "environment": "environment",
    "runscript": "runscript",
    "startscript": "startscript",
    "test": "test script",
    "helpfile": "help",
    "list_apps": "apps",
}
"""Words for what a request asks for."""


def _flag(*names: str, text: str) -> Any:
    return typer.Option(*names, help=text)


@verb(
    examples=[
        "sifkit inspect image.sif",
        "sifkit inspect --runscript --environment image.sif",
        "sifkit inspect --deffile image.sif > image.def",
        "sifkit inspect --list-apps image.sif",
        "sifkit inspect --json --labels image.sif",
        "sifkit inspect --all image.sif",
    ]
)
def command(
    console: Console,
    *,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="SIF, squashfs or ext3 image, or a container's directory")],
    labels: Annotated[bool, _flag("--labels", "-l", text="show the labels (the default)")] = False,
    deffile: Annotated[bool, _flag("--deffile", "-d", text="show the definition file that the image was built from")] = False,
    environment: Annotated[bool, _flag("--environment", "-e", text="show the scripts that set the environment")] = False,
    runscript: Annotated[bool, _flag("--runscript", "-r", text="show the runscript")] = False,
    startscript: Annotated[bool, _flag("--startscript", "-s", text="show the startscript")] = False,
    test: Annotated[bool, _flag("--test", "-t", text="show the test script")] = False,
    helpfile: Annotated[bool, _flag("--helpfile", "-H", text="show the help of the runscript")] = False,
    list_apps: Annotated[bool, _flag("--list-apps", text="list the apps")] = False,
    app: Annotated[str, typer.Option("--app", metavar="NAME", help="show these of an app")] = "",
    everything: Annotated[bool, _flag("--all", text="print all of it as a JSON object")] = False,
    json: Annotated[bool, _flag("--json", "-j", text="print what is shown as a JSON object")] = False,
) -> None:
    """Show the metadata of a container: labels, scripts, environment, help, definition file and apps.

    Options, output and JSON are those of apptainer inspect; the JSON object has the key "sifkit" beside Apptainer's. Nothing is
    run: metadata that are not in objects of a SIF are read from the root's files, on any system and for any architecture.
    """
    from ..overlay.view.inspecting import InspectRequest, inspect_image

    if everything and app:
        raise UsageError("--all shows every app, and --app one of them", hint="give one of them")
    console.image = image
    console.takes_any_image = True
    console.json |= everything
    others = deffile or environment or runscript or startscript or test or helpfile or list_apps
    request = InspectRequest(
        labels=labels or not others,
        deffile=deffile,
        runscript=runscript,
        startscript=startscript,
        test=test,
        environment=environment,
        helpfile=helpfile,
        list_apps=list_apps,
        app=app,
        everything=everything,
    )
    with errors_about(image):
        found = inspect_image(image, request)
    for warning in found.warnings:
        console.warn(f"{show(image)}: {warning}")
    if console.json:
        console.write_json(found.metadata.json_text(head={"sifkit": JSON_SCHEMA}))
        return
    shown = list(_lines(found.metadata, app, list_apps=list_apps))
    for line in shown:
        _print(console, line)
    if not shown:
        subject = f"{show(image)}: the app {show(app)}" if app else show(image)
        console.note(f"{subject} has {_nothing(request)}")


def _nothing(request: InspectRequest) -> str:
    """Return the words for what was asked for and is not there: no labels, no runscript."""
    kinds = [noun for key, noun in NOUNS.items() if getattr(request, key)]
    return ", ".join(f"no {noun}" for noun in kinds)


def _lines(found: ContainerMetadata, app: str, *, list_apps: bool) -> list[str]:
    """Return what is printed, in Apptainer's order."""
    from ..overlay.view.container_metadata import encode_text

    lines = sorted(found.apps, key=encode_text) if list_apps else []
    if found.deffile:
        lines.append(found.deffile)
    chosen: AppMetadata | None = found.apps.get(app) if app else found  # None: only the definition file is shown
    if chosen is None:
        return lines
    for key in TEXTS:
        if text := getattr(chosen, key, ""):
            lines.append(text)
    lines += [f"=== {path} ===\n{chosen.environment[path]}\n" for path in sorted(chosen.environment, key=encode_text)]
    lines += [f"{name}: {chosen.labels[name]}" for name in sorted(chosen.labels, key=encode_text)]
    return lines


def _print(console: Console, text: str) -> None:
    """Print text as it is, on a terminal with control characters escaped."""
    from ..overlay.view.container_metadata import encode_text

    if console.out_is_terminal:
        lines = ("\t".join(map(show, line.split("\t"))) for line in text.split("\n"))
        console.line("\n".join(lines))
    else:
        console.write(encode_text(text) + b"\n")

"""``sifkit inspect``: text and JSON as Apptainer's, errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sifkit.sif import SIF, DataType

from ....support.container_tree import write_container

PRINTED = (Path(__file__).parents[4] / "fixtures" / "inspect" / "container.json").read_text(encoding="utf-8")
LABELS = 'Author: alice\nVersion: v1 "q" <&> \u00e9\n'


@pytest.fixture
def container(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_container(tmp_path / "box")


@pytest.mark.parametrize(
    ("options", "printed"),
    [
        ((), LABELS),
        (("-l",), LABELS),
        (("--deffile",), "Bootstrap: scratch\n\n%help\n  Help.\n"),
        (("-r",), '#!/bin/sh\n\n\techo "$@" \x01\x7f\x08\u2028\n\n\n\udcff\n'),
        (("-s", "-t", "-H"), "#!/bin/sh\nsleep 1\nexport FOO=bar\n  Help.\n"),
        (("--list-apps",), "bar\nfoo\n"),
        (("--app", "foo", "-e"), "=== /scif/apps/foo/scif/env/90-environment.sh ===\nexport FOOENV=1\n\n"),
        (("--app", "foo", "--list-apps", "-l"), "bar\nfoo\nSCIF_APP_NAME: foo\n"),
    ],
)
@pytest.mark.usefixtures("container")
def test_text(run, options, printed):
    assert run("inspect", *options, "box") == (0, printed, "")


@pytest.mark.usefixtures("container")
def test_the_json_object_is_apptainers_with_our_key(run):
    code, out, _ = run("inspect", "--all", "box")
    assert code == 0 and out.replace('\t"sifkit": 1,\n', "", 1) == PRINTED
    assert json.loads(out)["sifkit"] == 1
    code, out, _ = run("inspect", "-j", "-s", "box")
    assert json.loads(out)["data"] == {"attributes": {"startscript": "#!/bin/sh\nsleep 1"}}


@pytest.mark.usefixtures("container")
def test_what_an_app_cannot_have(run):
    """Apptainer prints the container's definition file then, and names the app in JSON if more than that is asked for."""
    with SIF.create("a.sif") as sif:
        sif.add(PRINTED.encode(), DataType.GENERIC_JSON, name=b"inspect-metadata.json")
    deffile = "Bootstrap: scratch\n\n%help\n  Help.\n"
    assert run("inspect", "--app", "foo", "-d", "a.sif") == (0, deffile, "")
    for image in ("a.sif", "box"):
        assert run("inspect", "--app", "foo", "-s", image) == (0, "", f"{image}: the app foo has no startscript\n")
        code, out, _ = run("inspect", "--json", "--app", "foo", "-s", image)
        assert code == 0 and json.loads(out)["data"] == {"attributes": {"apps": {"foo": {}}}}
    code, out, _ = run("inspect", "--json", "--app", "foo", "-d", "a.sif")
    assert code == 0 and list(json.loads(out)["data"]["attributes"]) == ["deffile"]


@pytest.mark.usefixtures("container")
def test_on_a_terminal_control_characters_are_escaped(run, monkeypatch):
    monkeypatch.setattr("sifkit.cli.support.console.Console.out_is_terminal", True)
    assert run("inspect", "-r", "box")[1] == '#!/bin/sh\n\n\techo "$@" \\x01\\x7f\\x08\\u2028\n\n\n\\xff\n'
    (Path("box/.singularity.d") / "labels.json").write_text('{"a": "\x7f\x9b2J"}')
    out = run("inspect", "--json", "box")[1]
    assert "\\u007f\\u009b2J" in out and json.loads(out)["data"]["attributes"]["labels"] == {"a": "\x7f\x9b2J"}


def test_nothing_to_show_is_a_note(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "box").mkdir()
    assert run("inspect", "box") == (0, "", "box has no labels\n")
    assert run("inspect", "-r", "--list-apps", "box") == (0, "", "box has no runscript, no apps\n")
    assert run("inspect", "-q", "box") == (0, "", "")


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("box", "--app", "x"), 1, "sifkit inspect: box: there is no app x; its apps are: bar, foo\n"),
        (("none",), 1, "sifkit inspect: none: No such file or directory\n"),
        (("box/.singularity.d/runscript",), 1, "no ext3 filesystem"),
        (("box", "--all", "--app", "foo"), 2, "--app"),
        (("a.sif",), 1, "sifkit inspect: a.sif: object 1: 17 MiB of metadata, more than the limit of 16 MiB\n"),
    ],
)
def test_errors_are_one_line(run, arguments, code, message):
    with SIF.create("a.sif") as sif:
        sif.add(bytes(17 << 20), DataType.GENERIC_JSON, name=b"inspect-metadata.json")
    found = run("inspect", *arguments)
    assert found[0] == code
    text = found[1] + found[2]
    assert message in text and text.count("\n") == 1

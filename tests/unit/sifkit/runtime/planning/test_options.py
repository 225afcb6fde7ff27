"""Table of options: complete, consistent, and what variables add."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sifkit.errors import NotYetError, UsageError
from sifkit.runtime.planning.options import (
    OPTIONS,
    RunOption,
    RunOptions,
    Value,
    check_options,
    no_effect_notes,
    options_for,
    with_variables,
)

APPTAINERS = Path(__file__).parents[5] / "fixtures" / "apptainer" / "options.txt"
VERBS = ("exec", "run", "shell")


def parsed(text: str) -> dict[str, set[tuple[str, str]]]:
    """Names and letters by verb."""
    found: dict[str, set[tuple[str, str]]] = {verb: set() for verb in VERBS}
    for line in text.splitlines():
        verb, name, letter = line.split()
        found[verb].add((name, letter.strip("-")))
    return found


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_apptainer_is_known(verb: str) -> None:
    theirs = parsed(APPTAINERS.read_text())[verb] - {("help", "h")}
    ours = {(option.name, option.letter) for option in options_for(verb)}
    assert theirs - ours == set()
    hidden = {"no-nv", "no-rocm", "containlibs", "ignore-subuid", "ignore-fakeroot-command"}
    extra = {"tmpfs-size", "dry-run"} | hidden  # ours, and those that its help hides
    assert {name for name, _ in ours - theirs} == extra


def test_names_and_letters_are_unique() -> None:
    for verb in VERBS:
        words = [word for option in options_for(verb) for word in (option.name, *option.other_names, option.letter) if word]
        assert [word for word, count in Counter(words).items() if count > 1] == []
    assert all(option.reason for option in OPTIONS if option.status != "works")


def test_options_that_work_have_a_field() -> None:
    known = set(RunOptions._fields)
    works = {option.key for option in OPTIONS if option.status == "works"}
    assert works | {"given"} == known


def test_values_become_fields() -> None:
    found = RunOptions.of({"bind": ("a",), "pid": True, "home": "", "memory": "1G", "no_privs": True, "contain": False})
    assert found.bind == ("a",) and found.pid and found.no_privs and not found.contain
    assert found.given == {"bind", "pid", "no_privs"}


def test_refused_options_say_why() -> None:
    for values, reason in (({"memory": "1G"}, "cgroups"), ({"add_caps": "X"}, "capabilities")):
        with pytest.raises(NotYetError, match="is not supported") as caught:
            check_options(values, "exec")
        assert reason in caught.value.hint
    check_options({"memory": "", "sharens": False, "bind": ("a",)}, "exec")
    assert list(no_effect_notes({"unsquash": True, "no_https": False}, "exec")) == [
        "--unsquash has no effect: images are unpacked only where nothing else works"
    ]


def test_variables_stand_in_for_options() -> None:
    environment = {
        "APPTAINER_OVERLAY": "a.img",
        "SINGULARITY_OVERLAYIMAGE": "b.img",
        "APPTAINER_CONTAIN": "true",
        "SINGULARITY_NV": "0",
        "APPTAINER_TARGET_PWD": "/x",
        "APPTAINER_HOME": "/h",
        "APPTAINER_MEMORY": "",
    }
    found, notes = with_variables({"home": "/given"}, environment, "exec")
    assert found == {"home": "/given", "overlay": ("a.img",), "contain": True, "nv": False, "cwd": "/x"}
    assert notes == ()


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.variables], ids=lambda option: option.name)
def test_every_variable_is_read(option: RunOption) -> None:
    verb = option.only[0] if option.only else "run"
    values: dict[str, Value] = {"flag": True, "text": "1", "list": ("1",)}
    for name in option.variables:
        for prefix in ("APPTAINER", "SINGULARITY"):
            assert with_variables({}, {f"{prefix}_{name}": "1"}, verb) == ({option.key: values[option.kind]}, ())
    assert with_variables({}, {f"APPTAINER_{option.variables[0]}": ""}, verb)[0] == {}


def test_binds_of_variables_are_added() -> None:
    environment = {"APPTAINER_BIND": "/1", "SINGULARITY_BIND": "/2", "SINGULARITY_BINDPATH": "/3"}
    found, notes = with_variables({"bind": ("/0",)}, environment, "exec")
    assert found["bind"] == ("/0", "/1", "/3")
    assert notes == ("SINGULARITY_BIND and APPTAINER_BIND differ; the latter is used",)


def test_mounts_of_variables_are_added() -> None:
    found, _ = with_variables({"mount": ("a",)}, {"APPTAINER_MOUNT": "b", "APPTAINER_NV_OFF": "1"}, "exec")
    assert found == {"mount": ("a", "b"), "no_nv": True}


def test_variables_that_are_no_truth_values() -> None:
    with pytest.raises(UsageError, match="APPTAINER_PID is maybe, which is neither true nor false"):
        with_variables({}, {"APPTAINER_UNSHARE_PID": "1", "APPTAINER_PID": "maybe"}, "exec")


def test_the_shell_is_an_option_of_shell() -> None:
    assert with_variables({}, {"APPTAINER_SHELL": "/bin/zsh"}, "exec")[0] == {}
    assert with_variables({}, {"APPTAINER_SHELL": "/bin/zsh"}, "shell")[0] == {"shell": "/bin/zsh"}


def test_the_manual_has_every_option_without_effect_or_refused() -> None:
    text = (Path(__file__).parents[5] / "docs" / "running.md").read_text()
    for option in OPTIONS:
        if option.status != "works":
            assert any(f"`{option.spelling}`" in line and option.reason in line for line in text.splitlines()), option.name

"""What is typed wrong: options, verbs of other groups, empty names; one line that helps, exit 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sifkit.cli import completion
from sifkit.cli.root import root
from sifkit.cli.support import suggest

VERBS = [node.path for node in completion.tree(root)]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (
            ["overlay", "create", "--fromdir", "x"],
            "sifkit overlay create: no such option --fromdir (did you mean --from-dir?); see sifkit overlay create -h",
        ),
        (["create"], "sifkit: no such command create (did you mean sifkit overlay create?); see sifkit -h"),
        (["mkfs.ext3"], "sifkit: no such command mkfs.ext3 (did you mean sifkit overlay create?); see sifkit -h"),
        (
            ["overlay", "creat"],
            "sifkit overlay: no such command creat (did you mean sifkit overlay create?); see sifkit overlay -h",
        ),
        (["zzzzz"], "sifkit: no such command zzzzz; see sifkit -h"),
        (["pull", "docker://x"], "sifkit: no such command pull (only apptainer has it); see sifkit -h"),
        (
            ["overlay", "create", "--size"],
            "sifkit overlay create: option '--size' requires an argument; see sifkit overlay create --help",
        ),
        (["ls", "x", "--overlay"], "sifkit ls: option '--overlay' requires an argument; see sifkit ls --help"),
        (["overlay", "info"], "sifkit overlay info: IMAGE is missing; see sifkit overlay info -h"),
        (["overlay", "clone", "a"], "sifkit overlay clone: NEW is missing; see sifkit overlay clone -h"),
        (["cat"], "sifkit cat: IMAGE PATH... is missing; see sifkit cat -h"),
        (["ls"], "sifkit ls: IMAGE [PATH]... is missing; see sifkit ls --help"),
        (
            ["overlay", "create", "--layout", "roof"],
            "sifkit overlay create: --layout roof: must be one of auto, root, upper, data; did you mean root?",
        ),
        (
            ["overlay", "create", "--from-dir", "a", "--from-tar", "b"],
            "sifkit overlay create: --from-dir and --from-tar exclude each other; give one source",
        ),
        (
            ["overlay", "create", "-f", "--owner", "me"],
            "sifkit overlay create: --fakeroot and --owner contradict each other; give one of them",
        ),
        (["a\x1b[31m\nb"], "sifkit: no such command a\\x1b[31m\\nb; see sifkit -h"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(run, argv, says):
    assert run(*argv) == (2, "", says + "\n")


@pytest.mark.parametrize(
    ("argv", "exit_code", "says"),
    [
        ("ls /opt o.img", 2, "ls: the image comes before the paths; did you mean o.img /opt?"),
        ("cat text o.img", 2, "cat: the image comes before the paths; did you mean o.img text?"),
        ("find / o.img", 2, "find: the image comes before the paths; did you mean o.img /?"),
        (
            "overlay resize 1G o.img",
            2,
            "overlay resize: the image comes before the size; did you mean sifkit overlay resize o.img 1G?",
        ),
        (
            "overlay chown o.img me",
            2,
            "overlay chown: the owner comes before the image; did you mean sifkit overlay chown me o.img?",
        ),
        ("overlay create --from-dir none new.img", 1, "overlay create: none: No such file or directory"),
        ("overlay create --from-tar none new.img", 1, "overlay create: none: No such file or directory"),
    ],
)
def test_swapped_and_missing_files(run, tmp_path, monkeypatch, argv, exit_code, says):
    monkeypatch.chdir(tmp_path)
    run("overlay", "create", "--size", "8M", "o.img", "-q")
    Path("text").write_text("text")
    assert run(*argv.split()) == (exit_code, "", f"sifkit {says}\n")


def test_an_image_is_no_archive(run, tmp_path, monkeypatch):
    """It begins with a KiB of zeros, as an empty archive."""
    monkeypatch.chdir(tmp_path)
    run("overlay", "create", "--size", "8M", "o.img", "-q")
    code, _, err = run("overlay", "create", "--from-tar", "o.img", "new.img")
    assert code == 1 and err.startswith("sifkit overlay create: o.img: is an ext3 image, not an archive; to copy ")
    assert not Path("new.img").exists()


SLIPS = ["version", "creat", "overly", "inof", "clnoe", "comlpetion"]
KNOWN = {" ".join(path) for path in suggest.verb_paths(root)}


@pytest.mark.parametrize(
    ("group", "word"),
    [(group, word) for group in ([], ["overlay"]) for word in [*suggest.SYNONYMS, *SLIPS] if (*group, word) not in VERBS],
)
def test_only_verbs_that_exist_are_suggested(run, group, word):
    code, out, err = run(*group, word)
    path = " ".join(["sifkit", *group])
    assert (code, out) == (2, "") and err.endswith(f"; see {path} -h\n") and err.count("\n") == 1
    meant = err.partition("(did you mean ")[2].partition("?)")[0]
    if meant:
        assert all(verb.removeprefix("sifkit ") in KNOWN or verb.split()[-1].startswith("-") for verb in meant.split(" or "))
    else:
        assert f"no such command {word} in this release" in err
        assert not KNOWN & set(suggest.SYNONYMS[word])


@pytest.mark.parametrize(
    ("group", "word", "verb"),
    [
        ([], "creat", "sifkit overlay create"),
        ([], "mkfs", "sifkit overlay create"),
        ([], "clone", "sifkit overlay clone"),
        (["overlay"], "ls", "sifkit ls"),
        (["overlay"], "list", "sifkit ls"),
        (["overlay"], "cp", "sifkit overlay clone"),
        (["overlay"], "inf", "sifkit overlay info"),
    ],
)
def test_where_a_verb_lives(run, group, word, verb):
    assert f"(did you mean {verb}?)" in run(*group, word)[2]


def test_verbs_of_a_group_to_come_are_found_when_they_are_there(monkeypatch):
    known = [("overlay",), ("overlay", "create"), ("overlay", "info"), ("ls",), ("sif",), ("sif", "info"), ("sif", "list")]
    monkeypatch.setattr(suggest, "verb_paths", lambda group: iter([*known, ("sif", "add"), ("sif", "del")]))

    def said(word, at=()):
        return suggest.unknown_command(root, at, word, {})

    assert said("list") == "no such command list (did you mean sifkit sif list?)"
    assert said("add", ("overlay",)) == "no such command add (did you mean sifkit sif add?)"
    assert said("remove") == "no such command remove (did you mean sifkit sif del?)"
    assert said("info") == "no such command info (did you mean sifkit overlay info or sifkit sif info?)"
    assert said("inf", ("sif",)) == "no such command inf (did you mean sifkit sif info?)"
    assert said("setprim") == "no such command setprim in this release"
    assert said("qqq") == "no such command qqq"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["overlay", "create", ""], "sifkit overlay create: IMAGE is empty; "),
        (["overlay", "create", "--from-dir", ""], "sifkit overlay create: --from-dir has an empty value; "),
        (["overlay", "create", "-s", ""], "sifkit overlay create: --size has an empty value; "),
        (["overlay", "create", "--exclude", "a", "--exclude", ""], "sifkit overlay create: --exclude has an empty value; "),
        (["overlay", "clone", "a", ""], "sifkit overlay clone: NEW is empty; "),
        (["overlay", "info", ""], "sifkit overlay info: IMAGE is empty; "),
        (["ls", ""], "sifkit ls: IMAGE is empty; "),
        (["ls", "a", "/", ""], "sifkit ls: PATH is empty; "),
        (["cat", "a", ""], "sifkit cat: PATH is empty; "),
        (["overlay", "create", "-d", "a", "--from-dir", "b"], "sifkit overlay create: --from-dir is given more than once; "),
        (["overlay", "create", "a", "b c", "d"], "sifkit overlay create: too many arguments: b c d; see "),
        (["overlay", "create", "--exclude-from", "no\n"], "sifkit overlay create: --exclude-from no\\n: No such file"),
    ],
)
def test_empty_and_odd_arguments(run, made, tmp_path, monkeypatch, argv, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*argv)
    assert (code, out) == (1 if "--exclude-from" in argv else 2, "")
    assert err.startswith(says) and err.count("\n") == 1 and made == []


def test_an_empty_label_is_one(run, made):
    assert run("overlay", "create", "-L", "")[0] == 0
    assert made[0][1].label == b""


@pytest.mark.parametrize("argv", [("--json", "overlay", "create"), ("overlay", "--json", "create")])
def test_json_before_the_verb(run, made, argv):
    code, out, _ = run(*argv, "o.img")
    assert code == 0 and json.loads(out)["command"] == "overlay create"
    for more in ("cat", "x", "/y"), ("completion", "bash"):
        code, out, _ = run("--json", *more)
        assert code == 2 and json.loads(out)["error"]["kind"] == "usage"


def test_auto_in_any_case(run, made):
    for text in ("auto", "AUTO", "Auto", " auto "):
        assert run("overlay", "create", "-s", text)[0] == 0
    assert {options.size for _, options in made} == {None}


def test_usage_errors_in_json(run):
    code, out, err = run("overlay", "create", "--json", "--fromdir", "x")
    assert code == 2 and not err
    assert json.loads(out)["error"]["kind"] == "usage"

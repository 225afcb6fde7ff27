"""What coreutils do with a tree of files, case by case: exit code and words, the same from a command on an image.

The words are those of GNU coreutils 9.1 and 9.10. ``but`` names what is not the same, and why is said beside it.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CASES", "HINTS", "IMAGE", "Case", "make_tree", "words_on_image"]

IMAGE = "o.img"
TOP = f"{IMAGE}:/upper/"
HINTS = (
    "; -f replaces it",
    "; give -r",
    "; -r removes directories",
    "; -p creates parent directories",
    "; write for example 0755 or u+rwX,go-w",
    "; create the directory first: ",
)
"""Beginnings of what we add to the words of coreutils."""


@dataclass(frozen=True, slots=True)
class Case:
    """A command, how it ends, and its messages behind the name of the program.

    ``but``: what of "code", "words" and "tree" is not as coreutils have it. ``or_words``: what another release of them says.
    """

    line: str
    code: int = 0
    words: tuple[str, ...] = ()
    but: frozenset[str] = frozenset()
    or_words: tuple[str, ...] = ()


def _case(line: str, code: int = 0, *words: str, but: str = "", other: str = "") -> Case:
    return Case(line, code, words, frozenset(but.split()), (other,) if other else words)


def make_tree(top: Path) -> None:
    """The files that the cases are about."""
    for directory in ("d/e", "full/x/z", "x/y", "empty", "dir2/sub"):
        (top / directory).mkdir(parents=True)
    for name, data in (("a", "a\n"), ("b", "b\n"), ("d/f", "f\n"), ("d/e/f", "ef\n")):
        (top / name).write_text(data)
    os.link(top / "a", top / "h")
    for name, target in (("l", "a"), ("dang", "nowhere"), ("loop", "loop"), ("ld", "d")):
        (top / name).symlink_to(target)
    os.mkfifo(top / "p")


def words_on_image(line: str) -> list[str]:
    """The command for an image: paths are in it, but for what is no path (a mode, an owner, the text of a symbolic link)."""
    verb, *rest = shlex.split(line)
    symbolic = verb == "ln" and any(word.startswith("-") and "s" in word for word in rest)
    taken = 1 if verb in ("chmod", "chown") else 0
    if verb == "mkdir" and rest[0].startswith("-") and rest[0].endswith("m"):
        taken = 1
    paths = [number for number, word in enumerate(rest) if not word.startswith("-")][taken:]
    for number in paths[-1:] if symbolic else paths:
        rest[number] = TOP + rest[number]
    return [verb, *rest]


CASES = (
    _case("mv l a", 1, "'l' and 'a' are the same file"),
    _case("mv a a", 1, "'a' and 'a' are the same file"),
    _case("mv a h", 1, "'a' and 'h' are the same file"),
    _case("mv h l"),
    _case("mv l l", 1, "'l' and 'l' are the same file"),
    _case("mv d d", 1, "cannot move 'd' to a subdirectory of itself, 'd/d'"),
    _case("mv d d/e", 1, "cannot move 'd' to a subdirectory of itself, 'd/e/d'"),
    _case("mv d d/new", 1, "cannot move 'd' to a subdirectory of itself, 'd/new'"),
    _case("mv d/ d/e/new", 1, "cannot move 'd/' to a subdirectory of itself, 'd/e/new'"),
    _case(
        "mv x full",
        1,
        "cannot move 'x' to 'full/x': Directory not empty",
        other="cannot overwrite 'full/x': Directory not empty",
    ),
    _case(
        "mv -T x full",
        1,
        "cannot move 'x' to 'full': Directory not empty",
        other="cannot overwrite 'full': Directory not empty",
    ),
    _case("mv -T x empty"),
    _case("mv a empty/"),
    _case("mv a d"),
    _case("mv a none/", 1, "cannot move 'a' to 'none/': Not a directory"),
    _case("mv a none/x", 1, "cannot move 'a' to 'none/x': No such file or directory"),
    _case("mv a b/", 1, "cannot stat 'b/': Not a directory"),
    _case("mv none d", 1, "cannot stat 'none': No such file or directory"),
    _case("mv d a", 1, "cannot overwrite non-directory 'a' with directory 'd'"),
    _case(
        "mv a d -T",
        1,
        "cannot overwrite directory 'd' with non-directory 'a'",
        other="cannot overwrite directory 'd' with non-directory",
    ),
    _case("mv a b none", 1, "target 'none': No such file or directory"),
    _case("mv a b d/f", 1, "target 'd/f': Not a directory"),
    _case("mv ld/ moved", 1, "cannot move 'ld/' to 'moved': Not a directory"),
    _case("mv ld moved"),
    _case("mv a/ moved", 1, "cannot stat 'a/': Not a directory"),
    _case("mv empty none/"),
    _case("mv d/. moved", 1, "cannot move 'd/.' to 'moved': Device or resource busy"),
    _case("mv d/.. moved", 1, "cannot move 'd/..' to 'moved': Device or resource busy"),
    _case("mv . moved", 1, "cannot move '.' to 'moved': Device or resource busy"),
    _case("mv d/f f d", 1, "'d/f' and 'd/f' are the same file", "cannot stat 'f': No such file or directory"),
    _case("mv d/f d/e/f .", 1, "will not overwrite just-created './f' with 'd/e/f'"),
    _case("mv d/f d/e/f empty", 1, "will not overwrite just-created 'empty/f' with 'd/e/f'"),
    _case("mv -n a b"),
    _case("mv dang newname"),
    _case("mv a dang"),
    _case("mv a loop"),
    _case("mv d/ ld", 1, "cannot move 'd/' to a subdirectory of itself, 'ld/d'"),
    _case("mv a ld"),
    _case("cp d new", 1, "-r not specified; omitting directory 'd'"),
    _case("cp -r d d", 1, "cannot copy a directory, 'd', into itself, 'd/d'", but="tree"),  # they begin before they see it
    _case("cp -r d d/e", 1, "cannot copy a directory, 'd', into itself, 'd/e/d'", but="tree"),  # they begin before they see it
    _case(
        "cp -r d d/new", 1, "cannot copy a directory, 'd', into itself, 'd/new'", but="tree"
    ),  # they begin before they see it
    _case("cp -rT d d", 1, "'d' and 'd' are the same file"),
    _case("cp a a", 1, "'a' and 'a' are the same file"),
    _case("cp a h", 1, "'a' and 'h' are the same file"),
    _case("cp a l", 1, "'a' and 'l' are the same file"),
    _case("cp l a", 1, "'l' and 'a' are the same file"),
    _case("cp -a l a", 1, "'l' and 'a' are the same file"),
    _case("cp -a a l", 1, "'a' and 'l' are the same file"),
    _case("cp a dang", 1, "not writing through dangling symlink 'dang'"),
    _case("cp a loop", 1, "cannot stat 'loop': Too many levels of symbolic links"),
    _case("cp loop x", 1, "cannot stat 'loop': Too many levels of symbolic links"),
    _case("cp -a loop newloop"),
    _case("cp a d/"),
    _case("cp a none/", 1, "cannot create regular file 'none/': Not a directory"),
    _case("cp a none/x", 1, "cannot create regular file 'none/x': No such file or directory"),
    _case("cp a b/", 1, "cannot stat 'b/': Not a directory"),
    _case("cp a/ new", 1, "cannot stat 'a/': Not a directory"),
    _case("cp -r d none/"),
    _case("cp -r d none/x", 1, "cannot create directory 'none/x': No such file or directory"),
    _case("cp -r d a", 1, "cannot overwrite non-directory 'a' with directory 'd'"),
    _case("cp -rT d a", 1, "cannot overwrite non-directory 'a' with directory 'd'"),
    _case(
        "cp -T a d",
        1,
        "cannot overwrite directory 'd' with non-directory 'a'",
        other="cannot overwrite directory 'd' with non-directory",
    ),
    _case("cp a b none", 1, "target 'none': No such file or directory"),
    _case("cp a b d/f", 1, "target 'd/f': Not a directory"),
    _case("cp a b d d", 1, "-r not specified; omitting directory 'd'"),
    _case("cp none d", 1, "cannot stat 'none': No such file or directory"),
    _case("cp ld new", 1, "-r not specified; omitting directory 'ld'"),
    _case("cp ld/ new", 1, "-r not specified; omitting directory 'ld/'"),
    _case("cp -r ld new"),
    _case("cp -r ld/ new"),
    _case("cp -r ld/. new"),
    _case("cp -r d/. new"),
    _case(
        "cp -r d/.. new", 1, "cannot copy a directory, 'd/..', into itself, 'new'", but="tree"
    ),  # they begin before they see it
    _case("cp -r . new", 1, "cannot copy a directory, '.', into itself, 'new'", but="tree"),  # they begin before they see it
    _case("cp -r d new/"),
    _case("cp d/f d/e/f empty", 1, "will not overwrite just-created 'empty/f' with 'd/e/f'"),
    _case("cp -r d/e x/y empty"),
    _case("cp -r d d empty", 0, "warning: source directory 'd' specified more than once"),
    _case("cp a a empty", 0, "warning: source file 'a' specified more than once"),
    _case("cp -r p new"),
    _case("cp -a h empty"),
    _case("cp -a a h empty"),
    _case("cp -r a h empty"),
    _case("cp -n a b"),
    _case("cp -p a new"),
    _case("cp -r empty full/x"),
    _case("cp -r d/e full"),
    _case("cp -r a d empty/"),
    _case("cp -r d/f empty/f/", 1, "cannot create regular file 'empty/f/': Not a directory"),
    _case("rm d", 1, "cannot remove 'd': Is a directory"),
    _case("rm empty", 1, "cannot remove 'empty': Is a directory"),
    _case("rm -d empty"),
    _case("rm -d d", 1, "cannot remove 'd': Directory not empty"),
    _case("rm -d full/x", 1, "cannot remove 'full/x': Directory not empty"),
    _case("rm -r d"),
    _case("rm none", 1, "cannot remove 'none': No such file or directory"),
    _case("rm -f none"),
    _case("rm -f none/x"),
    _case("rm -f a/x"),
    _case("rm a/x", 1, "cannot remove 'a/x': Not a directory"),
    _case("rm a/", 1, "cannot remove 'a/': Not a directory"),
    _case("rm -f a/"),
    _case("rm -r ld/", 1, "cannot remove 'ld/': Not a directory", but="tree"),  # they remove what it leads to
    _case("rm ld"),
    _case("rm -r ld"),
    _case("rm ld/", 1, "cannot remove 'ld/': Is a directory"),
    _case("rm d/", 1, "cannot remove 'd/': Is a directory"),
    _case("rm -rf d/.", 1, "refusing to remove '.' or '..' directory: skipping 'd/.'"),
    _case("rm -rf d/..", 1, "refusing to remove '.' or '..' directory: skipping 'd/..'"),
    _case("rm -r .", 1, "refusing to remove '.' or '..' directory: skipping '.'"),
    _case("rm -r ..", 1, "refusing to remove '.' or '..' directory: skipping '..'"),
    _case("rm loop"),
    _case("rm a a", 1, "cannot remove 'a': No such file or directory"),
    _case("rm -r d d/e", 1, "cannot remove 'd/e': No such file or directory"),
    _case("rm loop/x", 1, "cannot remove 'loop/x': Too many levels of symbolic links"),
    _case("ln -s a b", 1, "failed to create symbolic link 'b': File exists"),
    _case("ln -s a b d"),
    _case("ln -s a d"),
    _case("ln -sf a b"),
    _case("ln -sf a l"),
    _case("ln -sf d ld"),
    _case("ln -sfn d ld"),
    _case("ln -sT a d", 1, "failed to create symbolic link 'd': File exists"),
    _case("ln -sfT a d", 1, "d: cannot overwrite directory"),
    _case("ln -s a none/x", 1, "failed to create symbolic link 'none/x': No such file or directory"),
    _case("ln -s a a", 1, "failed to create symbolic link 'a': File exists"),
    _case("ln -sf a a", 1, "'a' and 'a' are the same file"),
    _case("ln a b", 1, "failed to create hard link 'b': File exists"),
    _case("ln a h", 1, "failed to create hard link 'h': File exists"),
    _case("ln -f a h"),
    _case("ln -f a b"),
    _case("ln -f a a", 1, "'a' and 'a' are the same file"),
    _case("ln a d"),
    _case("ln d new", 1, "d: hard link not allowed for directory"),
    _case("ln none new", 1, "failed to access 'none': No such file or directory"),
    _case("ln l new"),
    _case("ln dang new"),
    _case("ln a none/", 1, "failed to create hard link 'none/' => 'a': No such file or directory"),
    _case("ln a new/", 1, "failed to create hard link 'new/' => 'a': No such file or directory"),
    _case("ln -s a new/", 1, "failed to create symbolic link 'new/': No such file or directory"),
    _case("ln -s d new/", 1, "failed to create symbolic link 'new/': No such file or directory"),
    _case("ln a b none", 1, "target 'none': No such file or directory"),
    _case("ln a b d/f", 1, "target 'd/f': Not a directory"),
    _case("ln -s a ld"),
    _case("ln loop new"),
    _case("ln a loop", 1, "failed to create hard link 'loop': File exists"),
    _case("ln d/f a/x", 1, "failed to create hard link 'a/x' => 'd/f': Not a directory"),
    _case("mkdir d", 1, "cannot create directory 'd': File exists"),
    _case("mkdir a", 1, "cannot create directory 'a': File exists"),
    _case("mkdir -p a", 1, "cannot create directory 'a': File exists"),
    _case("mkdir -p a/b", 1, "cannot create directory 'a': Not a directory"),
    _case("mkdir -p d/e"),
    _case("mkdir new/x", 1, "cannot create directory 'new/x': No such file or directory"),
    _case("mkdir -p new/x/y"),
    _case("mkdir new/"),
    _case("mkdir l", 1, "cannot create directory 'l': File exists"),
    _case("mkdir -p l", 1, "cannot create directory 'l': File exists"),
    _case("mkdir ld", 1, "cannot create directory 'ld': File exists"),
    _case("mkdir -p ld"),
    _case("mkdir dang", 1, "cannot create directory 'dang': File exists"),
    _case("mkdir -p dang", 1, "cannot create directory 'dang': File exists"),
    _case("mkdir -p dang/x", 1, "cannot create directory 'dang': File exists"),
    _case("mkdir .", 1, "cannot create directory '.': File exists"),
    _case("mkdir -p ."),
    _case("mkdir -p new/../other"),
    _case("mkdir a/x", 1, "cannot create directory 'a/x': Not a directory"),
    _case("mkdir loop/x", 1, "cannot create directory 'loop/x': Too many levels of symbolic links"),
    _case("mkdir -m 2711 new"),
    _case("mkdir -m u=rwx,go= new"),
    _case("mkdir -pm 700 new/x"),
    _case("chmod 644 none", 1, "cannot access 'none': No such file or directory"),
    _case("chmod 755 dang", 1, "cannot operate on dangling symlink 'dang'"),
    _case("chmod 755 loop", 1, "cannot access 'loop': Too many levels of symbolic links"),
    _case("chmod 755 l"),
    _case("chmod -R 700 d none", 1, "cannot access 'none': No such file or directory"),
    _case("chmod -R 700 ld"),
    _case("chmod u+rwX,g-w a d"),
    _case("chmod a=rX a d"),
    _case("chmod +t d"),
    _case("chmod u+s a"),
    _case("chmod u=g a"),
    _case("chmod 9 a", 2, "invalid mode: '9'", but="code"),  # wrong usage is 2
    _case("chmod u+q a", 2, "invalid mode: 'u+q'", but="code"),  # wrong usage is 2
    _case("chmod 755 a/", 1, "cannot access 'a/': Not a directory"),
    _case("chmod 755 a/x", 1, "cannot access 'a/x': Not a directory"),
    _case("chmod -R 755 a"),
    _case(
        "chown 5: a", 2, "invalid spec: '5:': a number has no login group; give a group, for example 5:5", but="code words"
    ),  # wrong usage is 2
    _case("chown :6 a"),
    _case("chown 5:6 a l"),
    _case("chown --no-dereference 7:8 l"),
    _case("chown -h 7:8 l"),
    _case("chown -h 7:8 a"),
    _case("chown -hR 7:8 ld"),
    _case("chown -R 5:6 ld"),
    _case("chown -R 5:6 d"),
    _case("chown 5 none", 1, "cannot access 'none': No such file or directory"),
    _case("chown 5 dang", 1, "cannot dereference 'dang': No such file or directory"),
    _case("chown --no-dereference 5 dang"),
    _case("chown -h 5 dang"),
    _case(
        "chown nosuchuser a",
        2,
        "OWNER nosuchuser: no such user nosuchuser; write numbers, such as 1000:1000",
        but="code words",
    ),  # wrong usage is 2
    _case("chown 5:6 a/x", 1, "cannot access 'a/x': Not a directory"),
    _case("chown 5 a/", 1, "cannot access 'a/': Not a directory"),
)

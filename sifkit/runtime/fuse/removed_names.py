"""Removed names of files that have others, by which overlayfs goes on to look for them.

Overlayfs keeps one dentry of its upper layer for all hard links of a file: that of the name it saw first. If FUSE serves that
layer, the kernel asks for this name again when any of the links is used, also after the name was removed, and the link is stale
(ESTALE) if it is not found. A file that was created without a name is asked for as ``/``. So a LOOKUP of such a name has two
meanings: the dentry, or the name as it is now. Which of them was meant shows afterwards:

* If the answer was wrong for a dentry, the call of the program fails with ESTALE inside the kernel, which tries it once more:
  the thread asks again at once, and gets the next answer. Before that the kernel forgets a node that was wrong.
* A lookup of the name as it is now is followed by a request for a mark of overlayfs, ``METACOPY``, if it finds a regular file.
  If that was the answer for a dentry, the request must fail with ESTALE. The thread gets the name as it is now from then on.

Calls that make a name are not tried again. So what is meant is taken from the names in the call that waits, if they are known
(see ``waiting_call``): the name as it is now if it is one of them, or the file that has one of them. If a file has another name
like it, and overlayfs hardly has this dentry (see ``link_names``), the name as it is now comes first.

Otherwise the answer for the dentry comes first; but second for files that are not regular, and where the kernel knows that
there is no such name. Of several files that had the name first, two can be found: the one used last and the next. Others are
stale until they are tried again, or the kernel has dropped their dentries.

The kernel does not keep these answers. When a name is removed it forgets how long its dentry is valid, so that it asks at least
once more, and a wrong answer to a lookup of the name itself would show a removed file for as long as it is kept: in a storm of
links 20 % of the calls fail then, not 0.4 %, and some give the content of another file. Up to Linux 6.18 the message
FUSE_NOTIFY_INVAL_ENTRY shows which of the two is meant, as it waits for the directory's lock, which only a lookup of the name
holds; but it does not show which of several files is meant (4 %), and later kernels do not wait.
"""

from __future__ import annotations

from collections.abc import Sequence

from .link_names import Key, LinkNames

__all__ = ["METACOPY", "NAMELESS", "OVERLAY_MARKS", "RemovedNames"]

METACOPY = b"user.overlay.metacopy"
OVERLAY_MARKS = b"user.overlay."
"""Beginning of the marks that overlayfs asks for where it has looked up a file, some of them before the other."""
NAMELESS = b"/"
"""Name that the kernel gives a file without one."""
MOST_NAMES = 10_000
MOST_THREADS = 1_000
TRIES = 3
"""Lookups of a name as it is now by a thread that was told to try again: of a dentry, of the name, and for a new file."""


class _Name:
    """Nodes that a name led to: the one asked for last, then the others, the last first.

    ``unlikely``: those of which the kernel hardly keeps this dentry. ``is_checked``: all are regular files; ``is_absent``: the
    kernel knows that there is no such name.
    """

    def __init__(self) -> None:
        self.nodes: list[int] = []
        self.unlikely: set[int] = set()
        self.used: int | None = None
        self.is_checked = True
        self.is_absent = False


class _Answer:
    """Answer to a thread: ``node``, where the name led to ``present``. ``is_wrong``: if the thread asks once more;
    ``is_last``: it has asked for nothing else since; ``is_second``: it asked twice at once. ``called``: names in its call;
    ``trusted``: how often at once it was answered by them alone."""

    def __init__(self, key: Key, node: int | None, present: int | None, *, is_second: bool) -> None:
        self.key = key
        self.node = node
        self.present = present
        self.is_second = is_second
        self.trusted = 0
        self.called: Sequence[bytes] = ()
        self.is_wrong = node is None
        self.is_last = True

    @property
    def is_dentry(self) -> bool:
        return self.node != self.present


class _Retry:
    """Thread that asks again for a name as it is now; ``node``: the wrong answer; ``left``: lookups that get the right one.

    ``is_link``: if no source of a rename was found, a link comes before: one with the same first name as ``node``, or with
    ``is_rename`` that of ``node`` itself, which is renamed to its first name.
    """

    def __init__(self, key: Key, node: int, *, is_rename: bool = False) -> None:
        self.key = key
        self.node = node
        self.is_rename = is_rename
        self.is_link = True
        self.left = TRIES


class RemovedNames:
    """Removed names that the kernel may still ask for. Nodes are those of the server."""

    def __init__(self) -> None:
        self.links = LinkNames()
        self._names: dict[Key, _Name] = {}
        self._keys: dict[int, set[Key]] = {}
        self._answers: dict[int, _Answer] = {}
        self._retries: dict[int, _Retry] = {}
        self._finders: set[int] = set()
        """Threads that have found a file by their last request."""

    def __bool__(self) -> bool:
        return bool(self._names)

    def __contains__(self, key: Key) -> bool:
        return key in self._names

    def add(self, directory: int, name: bytes, node: int, *, is_regular: bool) -> None:
        """Note that a name no longer leads to a node, which the kernel knows."""
        key = directory, name
        found = self._names.setdefault(key, _Name())
        if node in found.nodes:
            found.nodes.remove(node)
        found.unlikely.discard(node)
        if not self.links.removed(node, key):
            found.unlikely.add(node)
        found.nodes.insert(1 if found.nodes[:1] == [found.used] else 0, node)
        found.is_checked &= is_regular
        self._keys.setdefault(node, set()).add(key)
        if len(self._names) > MOST_NAMES:
            self._drop(next(iter(self._names)))

    def changed(self, directory: int, name: bytes) -> None:
        """Note that a name was removed: the kernel does not know yet that there is none."""
        found = self._names.get((directory, name))
        if found is not None:
            found.is_absent = False

    def forgotten(self, node: int, *, is_known: bool) -> None:
        """Note that the kernel forgets a node, or one of the times that it got it (``is_known``)."""
        for thread, answer in self._answers.items():
            if answer.node == node:
                answer.is_wrong = True
                if answer.is_dentry and answer.present is not None:
                    self._retries[thread] = _Retry(answer.key, node, is_rename=answer.is_second)
                found = self._names.get(answer.key)  # none: the kernel has forgotten all nodes that the name led to
                if found is not None and node in found.nodes:  # another one comes first now
                    found.nodes.remove(node)
                    found.nodes.append(node)
        if is_known:
            return
        self.links.forget(node)
        for key in self._keys.pop(node, ()):
            found = self._names[key]
            found.nodes.remove(node)
            found.unlikely.discard(node)
            if not found.nodes:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        for node in self._names.pop(key).nodes:
            self._keys[node].discard(key)
        if not self._names:
            self._answers.clear()
            self._retries.clear()
            self._finders.clear()

    def answer(self, thread: int, key: Key, present: int | None, called: Sequence[bytes] = ()) -> int | None:
        """Return the node for a lookup of a name in here.

        ``present``: the node it leads to now; None: there is none. ``called``: names in the call that waits, if they are known.
        """
        if thread in self._answers:
            self._note_use(thread, self._answers[thread])
        if self._is_called(thread, key, present, called):
            last = self._answers.get(thread)
            trusted = last.trusted if last is not None and last.key == key and last.is_last else 0
            if trusted < TRIES:
                return self._noted(thread, key, present, present, called, trusted + 1)
        retry = self._retries.get(thread)
        if retry is not None and retry.key == key and retry.left:
            others = self._names[key].nodes
            is_link, retry.is_link = retry.is_link and thread not in self._finders, False
            if is_link and retry.is_rename and retry.node in others:
                return self._noted(thread, key, retry.node, present)
            if is_link and others[0] not in (retry.node, present):
                return self._noted(thread, key, others[0], present)
            retry.left -= 1
            return self._noted(thread, key, present, present)
        answers = self._possible_answers(key, present, called)
        last = self._answers.get(thread)
        position = 0
        if last is not None and last.is_wrong and last.key == key and last.node in answers:
            is_only = len(self._names[key].nodes) == 1
            if is_only or not last.is_dentry:
                position = (answers.index(last.node) + 1) % len(answers)
        return self._noted(thread, key, answers[position], present, called)

    def _note_use(self, thread: int, last: _Answer) -> None:
        """Note that an answer was right, if it was a dentry's and the kernel has not forgotten it."""
        found = self._names.get(last.key)
        if found is not None and last.is_last and last.is_dentry and not last.is_wrong and last.node in found.nodes:
            found.nodes.remove(last.node)
            found.nodes.insert(0, last.node)
            found.unlikely.discard(last.node)
            found.used = last.node
            retry = self._retries.get(thread)
            if retry is not None and retry.key == last.key and retry.node != last.node:
                del self._retries[thread]  # it was another link that was looked up

    def _is_called(self, thread: int, key: Key, present: int | None, called: Sequence[bytes]) -> bool:
        """Return whether the names in a call show that a thread looks up a name as it is now."""
        if key[1] not in called:
            return False
        meant = self._meant(key, present, called)
        if not meant or called[1:] != (key[1],):
            return not meant
        if self._names[key].unlikely.issuperset(meant):
            return True
        # the new name of a file that had it before: the file is found first
        last = self._answers.get(thread)
        if last is None or last.key != key or last.called != called:
            return thread in self._finders
        return last.node in meant if last.node is not None and not last.is_wrong else last.trusted > 0 and present is None

    def _meant(self, key: Key, present: int | None, called: Sequence[bytes]) -> list[int]:
        """Return the files that had a name and have one of those in a call."""
        return [node for node in self._names[key].nodes if node != present and self.links.has_one_of(node, called)]

    def _possible_answers(self, key: Key, present: int | None, called: Sequence[bytes]) -> list[int | None]:
        found = self._names[key]
        others: list[int | None] = [node for node in found.nodes if node != present]
        meant = self._meant(key, present, called)
        if key[1] == NAMELESS:  # that of the target of a rename is asked for in any case
            meant.sort(key=lambda node: not self.links.has_one_of(node, called[-1:]))
        if meant and key[1] not in called[:1]:
            return [*meant, *(node for node in others if node not in meant), present]
        if key[1] == NAMELESS and others:
            return others
        last = [node for node in others if called and node in found.unlikely]
        if found.is_checked and not (present is None and found.is_absent):
            return [*(node for node in others if node not in last), present, *last]
        return [present, *others]

    def _noted(
        self,
        thread: int,
        key: Key,
        node: int | None,
        present: int | None,
        called: Sequence[bytes] = (),
        trusted: int = 0,
    ) -> int | None:
        if len(self._answers) > MOST_THREADS:
            self._answers.clear()
        last = self._answers.get(thread)
        is_second = last is not None and last.key == key and last.is_last and not last.is_wrong
        answer = self._answers[thread] = _Answer(key, node, present, is_second=is_second)
        answer.called, answer.trusted = called, trusted
        self._finders.discard(thread)
        self._names[key].is_absent |= node is None
        return node

    def has_asked(self, thread: int, key: Key) -> bool:
        """Return whether a thread has got a node for a name before: if it was wrong, the kernel has forgotten it by now."""
        last = self._answers.get(thread)
        return last is not None and last.key == key and last.node is not None

    def is_refused(self, thread: int, node: int) -> bool:
        """Return whether a request for ``METACOPY`` shows that a thread got a dentry's node for a name as it is now."""
        retry = self._retries.get(thread)
        if retry is not None and retry.node == node and retry.left == TRIES:  # it was another name of the file
            del self._retries[thread]
            return False
        last = self._answers.get(thread)
        if last is None or not last.is_last or not last.is_dentry or last.node != node:
            return False
        if len(self._retries) > MOST_THREADS:
            self._retries.clear()
        self._retries[thread] = _Retry(last.key, node)
        self._retries[thread].is_link = False
        return True

    def other_request(self, thread: int, *, is_change: bool = False, has_found_file: bool = False) -> None:
        """Note that a thread asks for something else, changes something, or has found a file that is no directory."""
        last = self._answers.get(thread)
        if last is not None:
            self._note_use(thread, last)
            last.is_last = False
        if is_change:
            self._answers.pop(thread, None)
            self._retries.pop(thread, None)
        if has_found_file and len(self._finders) < MOST_THREADS:
            self._finders.add(thread)
        else:
            self._finders.discard(thread)

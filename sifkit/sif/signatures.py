"""Which signatures an edit breaks: decided from the descriptors before and after it, and from what was signed. Pure.

A signature covers the header's launch script and identity, and of each object it names the bytes and most of the descriptor;
object ids count from the smallest of their group. A group's signature must name all its objects. Nothing verifies where an
object that is no signature is in no group, and a whole image only where every group has a signature. Nothing here verifies
anything.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import counted
from .errors import SIFError
from .format.descriptor import Descriptor
from .format.metadata import SignatureMeta
from .format.types import DataType

if TYPE_CHECKING:
    from .reading import ImageReader

__all__ = [
    "SIGNATURE_LIMIT",
    "Form",
    "Signed",
    "SignedError",
    "broken",
    "named",
    "parse_signed",
    "signature_form",
    "signatures",
    "what_is_signed",
]

SIGNATURE_LIMIT = 1 << 20
"""A signature is some thousand bytes; of a longer one nothing is read, and it counts as one that covers its whole group."""
_MOST_OBJECTS = 16384
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOR = b"-----BEGIN PGP SIGNATURE-----"
_PAYLOAD_TYPE = "application/vnd.sylabs.sif-metadata+json"
_SHOWN = 8


class SignedError(SIFError):
    """The edit would break signatures. ``ids``: the signature objects."""

    kind = "signed"

    def __init__(self, message: str, *, ids: tuple[int, ...]) -> None:
        hint = "--drop-signatures removes what breaks, --keep-broken-signatures keeps it, or sign the image again afterwards"
        super().__init__(message, hint=hint)
        self.ids = ids

    @classmethod
    def of(cls, found: Sequence[Descriptor], edit: str) -> SignedError:
        """For an ``edit`` (as the message says it) that breaks ``found``."""
        return cls(f"{edit} would break {named(found)}", ids=tuple(signature.id for signature in found))


Form = Literal["openpgp", "dsse"]
"""What verifiers know: OpenPGP clear text, and DSSE envelopes (of PEM keys), which tell of no fingerprint."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature object says it covers: ``relative_ids`` of objects of its group; None: the whole group, as far as one
    can tell. ``legacy``: the old form, which covers the bytes of objects and nothing else. ``form`` None: none that is known.
    """

    relative_ids: frozenset[int] | None = None
    legacy: bool = False
    form: Form | None = None


def named(found: Sequence[Descriptor]) -> str:
    """Signature objects as messages name them."""
    pieces = [f"{signature.id} (of {_what(signature)})" for signature in found[:_SHOWN]]
    more = len(found) - len(pieces)
    text = ", ".join(pieces) + (f" and {more} more" if more else "")
    return f"{'signature' if len(found) == 1 else counted(len(found), 'signature') + ':'} {text}"


def _what(signature: Descriptor) -> str:
    if signature.link_group:
        return f"group {signature.link_group}"
    return f"object {signature.link}" if signature.link else "nothing that it names"


def signatures(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """The signature objects among them."""
    return tuple(descriptor for descriptor in descriptors if descriptor.data_type == DataType.SIGNATURE)


def what_is_signed(image: ImageReader) -> dict[int, Signed]:
    """By the id of each signature of an open image, what it covers; nothing is read of one that is too long or cut short."""
    found: dict[int, Signed] = {}
    for signature in signatures(image):
        readable = signature.size <= SIGNATURE_LIMIT and signature.end <= image.file_size
        found[signature.id] = parse_signed(image.open_object(signature.id).read()) if readable else Signed()
    return found


def signature_form(head: bytes) -> Form | None:
    """The form of a signature that begins with these bytes; None for what no verifier takes for one."""
    text = head.lstrip()
    if text.startswith(_CLEARSIGNED):
        return "openpgp"
    return "dsse" if text.startswith(b"{") and _PAYLOAD_TYPE.encode() in text else None


def parse_signed(data: bytes) -> Signed:
    """What the bytes of a signature object cover: OpenPGP clear text or a DSSE envelope, in the present or the legacy form."""
    form = signature_form(data)
    text = _clear_text(data) if form == "openpgp" else _envelope(data) if form == "dsse" else None
    if text is None:
        return Signed()
    if text.startswith(b"SIFHASH:"):
        return Signed(legacy=True, form=form)
    try:
        objects: Any = json.loads(text)["objects"]
        ids = [entry["relativeId"] for entry in objects[:_MOST_OBJECTS]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Signed(form=form)
    return Signed(frozenset(number for number in ids if isinstance(number, int)), form=form)


def _clear_text(data: bytes) -> bytes | None:
    """The text between the armor's head and the signature (OpenPGP, cleartext signatures)."""
    body = data.replace(b"\r\n", b"\n").partition(_ARMOR)[0]
    head, blank, text = body.partition(b"\n\n")
    if not blank or _CLEARSIGNED not in head:
        return None
    return b"\n".join(line.removeprefix(b"- ") for line in text.split(b"\n")).strip()


def _envelope(data: bytes) -> bytes | None:
    """The payload of a DSSE envelope."""
    try:
        found: Any = json.loads(data)
        if found["payloadType"] != _PAYLOAD_TYPE:
            return None
        return base64.b64decode(found["payload"], validate=True)
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
        return None


def broken(
    before: Sequence[Descriptor],
    after: Sequence[Descriptor],
    signed: Mapping[int, Signed],
    *,
    rewritten: Iterable[int] = (),
) -> tuple[Descriptor, ...]:
    """The signatures of ``before`` that an edit breaks; those it removes do not count.

    ``after``: the descriptors it leaves, ids as before; ``rewritten``: ids of objects that get other bytes; ``signed``: by
    id of the signature object, what ``parse_signed`` says of it (nothing: it covers its group).
    """
    kept = {descriptor.id: descriptor for descriptor in after}
    found = [signature for signature in signatures(before) if signature.id in kept]
    if not found:
        return ()
    if _all_grouped(before) and not _all_grouped(after):
        return tuple(found)
    if _all_signed(before) and not _all_signed(after) and _has_new_gap(before, after):
        return tuple(found)
    changed = frozenset(rewritten)
    return tuple(
        s
        for s in found
        if _is_moved(s, kept[s.id], signed.get(s.id, Signed()))
        or _is_broken(s, before, after, signed.get(s.id, Signed()), changed)
    )


def _is_moved(old: Descriptor, new: Descriptor, signed: Signed) -> bool:
    """Whether the signature object itself no longer says what verifiers want of it: whom it is of, and what it is linked to."""
    was, now = old.metadata, new.metadata
    if not (isinstance(was, SignatureMeta) and isinstance(now, SignatureMeta)):
        return old.data_type != new.data_type
    by_another = signed.form == "openpgp" and was.fingerprint != now.fingerprint
    return old.linked_id != new.linked_id or by_another or (signed.legacy and was.hash_type != now.hash_type)


def _is_broken(
    signature: Descriptor, before: Sequence[Descriptor], after: Sequence[Descriptor], signed: Signed, rewritten: frozenset[int]
) -> bool:
    facts = _bytes_only if signed.legacy else _covered
    old, new = (_group_of(signature, these, itself=not signed.legacy) for these in (before, after))
    first_old, first_new = _first(old), _first(new)
    names_all = signed.relative_ids is None or signed.relative_ids >= {d.id - first_old for d in old}
    covered = [d for d in old if names_all or d.id - first_old in (signed.relative_ids or ())]
    if names_all and {d.id for d in old} != {d.id for d in new}:
        return True
    left = {d.id: d for d in new}
    return any(d.id not in left or d.id in rewritten or facts(d, first_old) != facts(left[d.id], first_new) for d in covered)


def _group_of(signature: Descriptor, descriptors: Sequence[Descriptor], *, itself: bool) -> list[Descriptor]:
    """The objects a signature can cover. ``itself``: a signature in its own group counts, and is one that was not signed; in
    the legacy form it may be there."""
    if signature.link_group:
        return [d for d in descriptors if d.group == signature.link_group and (itself or d.id != signature.id)]
    return [d for d in descriptors if signature.link and d.id == signature.link]


def _first(group: Iterable[Descriptor]) -> int:
    return min((d.id for d in group), default=0)


def _covered(d: Descriptor, first: int) -> tuple[object, ...]:
    """What the digest of a descriptor is made of."""
    return int(d.data_type), d.id - first, d.linked_id, d.size, d.created, d.uid, d.gid, d.name, d.extra


def _bytes_only(d: Descriptor, first: int) -> tuple[object, ...]:
    return (d.size,)


def _all_grouped(descriptors: Iterable[Descriptor]) -> bool:
    """Whether every object that is no signature is in a group: without that verifiers refuse the image, whatever is asked."""
    return all(d.group or d.data_type == DataType.SIGNATURE for d in descriptors)


def _all_signed(descriptors: Sequence[Descriptor]) -> bool:
    """Whether every object that is no signature is in a group that has one: without that a whole image does not verify."""
    return not any(map(_gap_in(descriptors), descriptors))


def _gap_in(descriptors: Sequence[Descriptor]) -> Callable[[Descriptor], bool]:
    """A test for objects without a signature of their group."""
    groups = {signature.link_group for signature in signatures(descriptors)}
    single = {signature.link for signature in signatures(descriptors)}
    return lambda d: d.data_type != DataType.SIGNATURE and (not d.group or d.group not in groups) and d.id not in single


def _has_new_gap(before: Sequence[Descriptor], after: Sequence[Descriptor]) -> bool:
    """Whether the gap is the edit's doing, and not that of a signature it removes on purpose."""
    removed = {d.id for d in signatures(before)} - {d.id for d in after}
    if not removed:
        return True
    gone = {d.link_group for d in before if d.id in removed}
    return any(_gap_in(after)(d) and d.group not in gone for d in after)

"""Signatures that an edit breaks, from the descriptors before and after it and from what is signed. Pure.

A signature covers the launch script and ID in the header, and the content and most of the descriptor of each object it names,
with IDs relative to the smallest in the group. A group's signature must name all objects of the group. No signature verifies
if an object (other than a signature) is in no group; a whole image verifies only if every group is signed. Signatures are not
verified here.
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
    "Coverage",
    "SignedError",
    "broken_signatures",
    "signature_text",
    "parse_coverage",
    "signature_form",
    "signatures",
    "read_coverage",
]

SIGNATURE_LIMIT = 1 << 20
"""Limit of signatures that are read (usual are some KiB); a larger one is taken to cover its whole group."""
_MOST_OBJECTS = 16384
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
_ARMOR = b"-----BEGIN PGP SIGNATURE-----"
_PAYLOAD_TYPE = "application/vnd.sylabs.sif-metadata+json"
_SHOWN = 8


class SignedError(SIFError):
    """Edit that would break signatures. ``ids``: the signature objects."""

    kind = "signed"

    def __init__(self, message: str, *, ids: tuple[int, ...]) -> None:
        hint = "remove them with --drop-signatures, or keep them with --keep-broken-signatures"
        super().__init__(message, hint=hint)
        self.ids = ids

    @classmethod
    def of(cls, found: Sequence[Descriptor], edit: str) -> SignedError:
        """Return the error for an ``edit`` (described as in the message) that breaks ``found``."""
        return cls(f"{edit} would break {signature_text(found)}", ids=tuple(signature.id for signature in found))


Form = Literal["openpgp", "dsse"]
"""Forms that verifiers know: OpenPGP cleartext signatures, and DSSE envelopes (PEM keys), which have no fingerprint."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of a signature. ``relative_ids``: objects of its group, None for the whole group or if unknown.

    ``legacy``: the old form, which covers only the content of objects. ``form`` None: unknown.
    """

    relative_ids: frozenset[int] | None = None
    legacy: bool = False
    form: Form | None = None


def signature_text(found: Sequence[Descriptor]) -> str:
    """Return signature objects as text, for messages."""
    pieces = [f"{signature.id} (of {_what(signature)})" for signature in found[:_SHOWN]]
    more = len(found) - len(pieces)
    text = ", ".join(pieces) + (f" and {more} more" if more else "")
    return f"{'signature' if len(found) == 1 else counted(len(found), 'signature') + ':'} {text}"


def _what(signature: Descriptor) -> str:
    if signature.link_group:
        return f"group {signature.link_group}"
    return f"object {signature.link}" if signature.link else "no object"


def signatures(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the signature objects among the descriptors."""
    return tuple(descriptor for descriptor in descriptors if descriptor.data_type == DataType.SIGNATURE)


def read_coverage(image: ImageReader) -> dict[int, Coverage]:
    """Read the coverage of each signature of an open image, by ID; that of truncated and too large ones is unknown."""
    found: dict[int, Coverage] = {}
    for signature in signatures(image):
        readable = signature.size <= SIGNATURE_LIMIT and signature.end <= image.file_size
        found[signature.id] = parse_coverage(image.open_object(signature.id).read()) if readable else Coverage()
    return found


def signature_form(head: bytes) -> Form | None:
    """Detect the form of a signature from its first bytes; None if it is unknown."""
    text = head.lstrip()
    if text.startswith(_CLEARSIGNED):
        return "openpgp"
    return "dsse" if text.startswith(b"{") and _PAYLOAD_TYPE.encode() in text else None


def parse_coverage(data: bytes) -> Coverage:
    """Parse the coverage in a signature object: OpenPGP cleartext or DSSE envelope, current or legacy."""
    form = signature_form(data)
    text = _clear_text(data) if form == "openpgp" else _envelope(data) if form == "dsse" else None
    if text is None:
        return Coverage()
    if text.startswith(b"SIFHASH:"):
        return Coverage(legacy=True, form=form)
    try:
        objects: Any = json.loads(text)["objects"]
        ids = [entry["relativeId"] for entry in objects[:_MOST_OBJECTS]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return Coverage(form=form)
    return Coverage(frozenset(number for number in ids if isinstance(number, int)), form=form)


def _clear_text(data: bytes) -> bytes | None:
    """Return the signed text of an OpenPGP cleartext signature."""
    body = data.replace(b"\r\n", b"\n").partition(_ARMOR)[0]
    head, blank, text = body.partition(b"\n\n")
    if not blank or _CLEARSIGNED not in head:
        return None
    return b"\n".join(line.removeprefix(b"- ") for line in text.split(b"\n")).strip()


def _envelope(data: bytes) -> bytes | None:
    """Return the payload of a DSSE envelope."""
    try:
        found: Any = json.loads(data)
        if found["payloadType"] != _PAYLOAD_TYPE:
            return None
        return base64.b64decode(found["payload"], validate=True)
    except (ValueError, LookupError, TypeError, RecursionError, binascii.Error):
        return None


def broken_signatures(
    before: Sequence[Descriptor],
    after: Sequence[Descriptor],
    signed: Mapping[int, Coverage],
    *,
    rewritten: Iterable[int] = (),
) -> tuple[Descriptor, ...]:
    """Return the signatures of ``before`` that an edit breaks, except those it removes.

    ``after``: the descriptors it leaves, with the same IDs. ``rewritten``: IDs of objects with new content. ``signed``:
    coverage by ID of the signature object; others cover their group.
    """
    kept = {descriptor.id: descriptor for descriptor in after}
    found = [signature for signature in signatures(before) if signature.id in kept]
    if not found:
        return ()
    if _all_grouped(before) and not _all_grouped(after):
        return tuple(found)
    if _all_signed(before) and not _all_signed(after) and _has_new_unsigned(before, after):
        return tuple(found)
    changed = frozenset(rewritten)
    return tuple(
        s
        for s in found
        if _is_changed(s, kept[s.id], signed.get(s.id, Coverage()))
        or _is_broken(s, before, after, signed.get(s.id, Coverage()), changed)
    )


def _is_changed(old: Descriptor, new: Descriptor, signed: Coverage) -> bool:
    """Return True if the edit changes what verifiers check of the signature object itself: its signer and its link."""
    was, now = old.metadata, new.metadata
    if not (isinstance(was, SignatureMeta) and isinstance(now, SignatureMeta)):
        return old.data_type != new.data_type
    by_another = signed.form == "openpgp" and was.fingerprint != now.fingerprint
    return old.linked_id != new.linked_id or by_another or (signed.legacy and was.hash_type != now.hash_type)


def _is_broken(
    signature: Descriptor,
    before: Sequence[Descriptor],
    after: Sequence[Descriptor],
    signed: Coverage,
    rewritten: frozenset[int],
) -> bool:
    digest_input = _legacy_digest_input if signed.legacy else _digest_input
    old, new = (_group_of(signature, these, itself=not signed.legacy) for these in (before, after))
    first_old, first_new = _first(old), _first(new)
    names_all = signed.relative_ids is None or signed.relative_ids >= {d.id - first_old for d in old}
    covered = [d for d in old if names_all or d.id - first_old in (signed.relative_ids or ())]
    if names_all and {d.id for d in old} != {d.id for d in new}:
        return True
    left = {d.id: d for d in new}
    return any(
        d.id not in left or d.id in rewritten or digest_input(d, first_old) != digest_input(left[d.id], first_new)
        for d in covered
    )


def _group_of(signature: Descriptor, descriptors: Sequence[Descriptor], *, itself: bool) -> list[Descriptor]:
    """Return the objects a signature can cover. ``itself``: include the signature if it is in its own group, as an unsigned
    object; the legacy form allows it there."""
    if signature.link_group:
        return [d for d in descriptors if d.group == signature.link_group and (itself or d.id != signature.id)]
    return [d for d in descriptors if signature.link and d.id == signature.link]


def _first(group: Iterable[Descriptor]) -> int:
    return min((d.id for d in group), default=0)


def _digest_input(d: Descriptor, first: int) -> tuple[object, ...]:
    """Return what the digest of a descriptor is computed from."""
    return int(d.data_type), d.id - first, d.linked_id, d.size, d.created, d.uid, d.gid, d.name, d.extra


def _legacy_digest_input(d: Descriptor, first: int) -> tuple[object, ...]:
    return (d.size,)


def _all_grouped(descriptors: Iterable[Descriptor]) -> bool:
    """Return True if every object other than signatures is in a group; otherwise verifiers refuse the image."""
    return all(d.group or d.data_type == DataType.SIGNATURE for d in descriptors)


def _all_signed(descriptors: Sequence[Descriptor]) -> bool:
    """Return True if every object other than signatures is in a signed group; otherwise the whole image does not verify."""
    return not any(map(_unsigned_test(descriptors), descriptors))


def _unsigned_test(descriptors: Sequence[Descriptor]) -> Callable[[Descriptor], bool]:
    """Return a test for objects that are not signed."""
    groups = {signature.link_group for signature in signatures(descriptors)}
    single = {signature.link for signature in signatures(descriptors)}
    return lambda d: d.data_type != DataType.SIGNATURE and (not d.group or d.group not in groups) and d.id not in single


def _has_new_unsigned(before: Sequence[Descriptor], after: Sequence[Descriptor]) -> bool:
    """Return True if objects are unsigned because of the edit, and not because it removes their signature."""
    removed = {d.id for d in signatures(before)} - {d.id for d in after}
    if not removed:
        return True
    gone = {d.link_group for d in before if d.id in removed}
    return any(_unsigned_test(after)(d) and d.group not in gone for d in after)

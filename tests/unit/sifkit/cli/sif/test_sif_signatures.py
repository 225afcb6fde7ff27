"""Which edits break which signatures."""

from __future__ import annotations

import base64
import json

import pytest

from sifkit.sif import DataType, Descriptor, HashType, SignatureMeta
from sifkit.sif.format.descriptor import join_group, join_link
from sifkit.sif.signatures import Coverage, SignedError, broken_signatures, parse_coverage, signature_form, signatures


def thing(id, group=1, *, kind=DataType.GENERIC, link_group=0, link=0, size=10):
    return Descriptor(
        data_type=kind, id=id, group_id=join_group(group), linked_id=join_link(link, link_group), offset=0, size=size,
        size_with_padding=size, created=1, modified=1,
    )  # fmt: skip


def signature(id, group):
    return thing(id, 0, kind=DataType.SIGNATURE, link_group=group)


ONE, TWO, SIGN = thing(1), thing(2), signature(3, 1)
SIGNED_IMAGE = [ONE, TWO, SIGN]
WHOLE = {3: Coverage(frozenset({0, 1}))}


@pytest.mark.parametrize(
    ("after", "breaks"),
    [
        ([ONE, TWO, SIGN], False),
        ([ONE, TWO._replace(modified=9, offset=99, size_with_padding=99), SIGN], False),
        ([ONE, TWO, SIGN._replace(name=b"x", modified=9)], False),
        ([ONE, TWO, SIGN, signature(4, 1)], False),
        ([ONE, TWO], False),
        ([ONE], False),
        ([ONE, SIGN], True),
        ([TWO, SIGN], True),
        ([ONE, TWO._replace(name=b"x"), SIGN], True),
        ([ONE, TWO._replace(extra=b"x"), SIGN], True),
        ([ONE, TWO._replace(created=2), SIGN], True),
        ([ONE, TWO._replace(linked_id=1), SIGN], True),
        ([ONE, TWO._replace(size=11), SIGN], True),
        ([ONE, TWO._replace(group_id=join_group(2)), SIGN], True),
        ([ONE, TWO, SIGN, thing(4, 1)], True),
        ([ONE, TWO, SIGN, thing(4, 0)], True),
        ([ONE, TWO, SIGN, thing(4, 2)], True),
    ],
)
@pytest.mark.parametrize("signed", [WHOLE, {}], ids=["parsed", "not parsed"])
def test_what_breaks(after, breaks, signed):
    assert broken_signatures(SIGNED_IMAGE, after, signed) == ((SIGN,) if breaks else ())


def test_new_bytes_break_and_those_of_a_signature_do_not():
    assert broken_signatures(SIGNED_IMAGE, SIGNED_IMAGE, WHOLE, rewritten=[2]) == (SIGN,)
    assert broken_signatures(SIGNED_IMAGE, SIGNED_IMAGE, WHOLE, rewritten=[3]) == ()


def test_a_signature_of_one_object_does_not_care_for_the_others():
    part = {3: Coverage(frozenset({1}))}
    assert broken_signatures(SIGNED_IMAGE, [ONE, TWO, SIGN, thing(4, 1)], part) == ()
    assert broken_signatures(SIGNED_IMAGE, [ONE._replace(name=b"x"), TWO, SIGN], part) == ()
    assert broken_signatures(SIGNED_IMAGE, [TWO, SIGN], part) == (SIGN,), "ids count from the first of the group"
    assert broken_signatures(SIGNED_IMAGE, SIGNED_IMAGE, part, rewritten=[2]) == (SIGN,)


def test_legacy_signatures_cover_bytes_only():
    legacy = {3: Coverage(legacy=True)}
    assert broken_signatures(SIGNED_IMAGE, [ONE._replace(name=b"x"), TWO, SIGN], legacy) == ()
    assert broken_signatures(SIGNED_IMAGE, SIGNED_IMAGE, legacy, rewritten=[1]) == (SIGN,)


def test_an_image_that_did_not_verify_as_a_whole_may_get_more_of_the_same():
    loose = [ONE, TWO, SIGN, thing(4, 0)]
    assert broken_signatures(loose, [*loose, thing(5, 0)], WHOLE) == ()
    assert broken_signatures(loose, [*loose, thing(5, 1)], WHOLE) == (SIGN,)


def test_a_signature_that_leaves_its_place():
    """Linked elsewhere, or in the group it is of: also where another signature of the group stays as it was."""
    both = [ONE, TWO, SIGN, signature(4, 1)]
    signed = {3: Coverage(frozenset({0, 1})), 4: Coverage(frozenset({0, 1}))}
    for linked in (join_link(2, 0), join_link(0, 2), 0):
        moved = SIGN._replace(linked_id=linked)
        assert broken_signatures(both, [ONE, TWO, moved, both[3]], signed) == (SIGN,)
    inside = [ONE, TWO, SIGN._replace(group_id=join_group(1)), both[3]]
    assert broken_signatures(both, inside, signed) == (SIGN, both[3]), "it is an object of the group that was not signed"
    assert broken_signatures(SIGNED_IMAGE, inside[:3], {3: Coverage(legacy=True)}) == ()


@pytest.mark.parametrize(
    ("signed", "breaks"),
    [
        (Coverage(frozenset({0, 1}), form="openpgp"), {"entity"}),
        (Coverage(frozenset({0, 1}), form="dsse"), set()),
        (Coverage(legacy=True, form="openpgp"), {"entity", "hash"}),
        (Coverage(), set()),
    ],
)
def test_a_signature_that_says_something_else(signed, breaks):
    """Verifiers compare the fingerprint with the signer's, where the form tells who that is, and need the old form's hash."""
    by = SIGN._replace(extra=SignatureMeta(HashType.SHA256, b"\1" * 20).pack_onto(b""))
    changes = {"entity": SignatureMeta(HashType.SHA256, b"\2" * 20), "hash": SignatureMeta(HashType.SHA512, b"\1" * 20)}
    for what, meta in changes.items():
        after = [ONE, TWO, by._replace(extra=meta.pack_onto(b""))]
        assert broken_signatures([ONE, TWO, by], after, {3: signed}) == ((by,) if what in breaks else ()), what


def test_the_form_is_told_by_the_first_bytes():
    assert signature_form(PGP[:40]) == "openpgp" and signature_form(b"\n" + envelope(MESSAGE)[:90]) == "dsse"
    assert signature_form(b"{}") is None and signature_form(b"") is None and signature_form(b"\xff") is None


def test_groups_are_apart():
    both = [ONE, signature(3, 1), thing(4, 2), signature(5, 2)]
    after = [ONE, signature(3, 1), thing(4, 2)._replace(name=b"x"), signature(5, 2)]
    assert [found.id for found in broken_signatures(both, after, {})] == [5]
    assert [found.id for found in broken_signatures(both, both[:3], {})] == [], "a signature is removed knowingly"


MESSAGE = json.dumps({"version": 1, "header": {}, "objects": [{"relativeId": 0}, {"relativeId": 2}]}).encode()
PGP = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n%s\n-----BEGIN PGP SIGNATURE-----\n\nabc\n"


def envelope(payload, kind="application/vnd.sylabs.sif-metadata+json"):
    return json.dumps({"payloadType": kind, "payload": base64.b64encode(payload).decode(), "signatures": []}).encode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (PGP % MESSAGE, Coverage(frozenset({0, 2}), form="openpgp")),
        ((PGP % MESSAGE).replace(b"\n", b"\r\n"), Coverage(frozenset({0, 2}), form="openpgp")),
        (envelope(MESSAGE), Coverage(frozenset({0, 2}), form="dsse")),
        (PGP % b"SIFHASH:\nabcdef", Coverage(legacy=True, form="openpgp")),
        (PGP % b"{}", Coverage(form="openpgp")),
        (PGP % b'{"objects": [1]}', Coverage(form="openpgp")),
        (envelope(MESSAGE, "text/plain"), Coverage()),
        (envelope(b"[]"), Coverage(form="dsse")),
        (b'{"payloadType": "application/vnd.sylabs.sif-metadata+json", "payload": "!"}', Coverage()),
        (b"[" * 100_000, Coverage()),
        (b"", Coverage()),
        (b"\xff\x00", Coverage()),
    ],
)
def test_parse(data, found):
    assert parse_coverage(data) == found


def test_the_error_names_the_signatures():
    error = SignedError.of(signatures(SIGNED_IMAGE), "adding x")
    assert error.ids == (3,) and str(error) == "adding x would break signature 3 (of group 1)"

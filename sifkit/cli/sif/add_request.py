"""What ``sif add`` was asked for, and what follows from it, from the image and from the content."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from ...errors import UsageError
from ..support.render import shell_word
from . import codes as words
from .object_source import Source, check_filesystem
from .session import Later

if TYPE_CHECKING:
    from ...sif import (
        SIF,
        Arch,
        DataType,
        Descriptor,
        FormatType,
        FSType,
        HashType,
        MessageType,
        Metadata,
        PartitionMeta,
        PartType,
        SBOMFormat,
    )

__all__ = ["Wanted", "look_at_signature", "plan", "with_group"]

OPTIONS = {
    "partition": ("--parttype", "--partfs", "--partarch"),
    "signature": ("--signhash", "--signentity"),
    "sbom": ("--sbomformat",),
    "cryptomessage": ("--cryptoformat", "--cryptomessage"),
}
"""Options that belong to one type of data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The options as values; None: not given."""

    data_type: DataType
    part_type: PartType | None = None
    fs_type: FSType | None = None
    arch: Arch | None = None
    hash_type: HashType | None = None
    entity: bytes | None = None
    sbom_format: SBOMFormat | None = None
    format_type: FormatType | None = None
    message_type: MessageType | None = None
    group: int | None = None
    link: int = 0
    link_group: int = 0
    alignment: int | None = None

    @classmethod
    def parse(
        cls,
        *,
        datatype: str | None,
        parttype: str | None,
        partfs: str | None,
        partarch: str | None,
        signhash: str | None,
        signentity: str | None,
        sbomformat: str | None,
        cryptoformat: str | None,
        cryptomessage: str | None,
        group: str | None,
        link: str | None,
        link_group: str | None,
        alignment: str | None,
    ) -> Self:
        """From the text of the options. Raises UsageError."""
        from ...sif import FormatType, FSType, HashType, MessageType, PartType, SBOMFormat

        given = {
            "--parttype": parttype,
            "--partfs": partfs,
            "--partarch": partarch,
            "--signhash": signhash,
            "--signentity": signentity,
            "--sbomformat": sbomformat,
            "--cryptoformat": cryptoformat,
            "--cryptomessage": cryptomessage,
        }
        low, high = -words.ALIGNMENT_LIMIT, words.ALIGNMENT_LIMIT
        to_object = words.optional(words.group, "--link", link) or 0
        to_group = words.optional(words.group, "--link-group", link_group) or 0
        if to_object and to_group:
            raise UsageError("--link and --link-group exclude each other", hint="an object belongs to one of them")
        return cls(
            data_type=_data_type(datatype, {option for option, text in given.items() if text is not None}),
            part_type=None if parttype is None else words.code(PartType, "--parttype", parttype),
            fs_type=None if partfs is None else words.code(FSType, "--partfs", partfs),
            arch=words.optional(words.arch, "--partarch", partarch),
            hash_type=None if signhash is None else words.code(HashType, "--signhash", signhash),
            entity=words.optional(words.fingerprint, "--signentity", signentity),
            sbom_format=None if sbomformat is None else words.code(SBOMFormat, "--sbomformat", sbomformat),
            format_type=None if cryptoformat is None else words.code(FormatType, "--cryptoformat", cryptoformat),
            message_type=None if cryptomessage is None else words.code(MessageType, "--cryptomessage", cryptomessage),
            group=words.optional(words.group, "--groupid", group),
            link=to_object,
            link_group=to_group,
            alignment=None
            if alignment is None
            else words.number("--alignment", alignment, low, high, hint="4096 is right for partitions, 0 is none"),
        )

    @property
    def is_overlay(self) -> bool:
        return self.part_type is not None and self.part_type.word == "overlay"


def _data_type(text: str | None, given: set[str]) -> DataType:
    """The data type, said or implied; options of another one contradict it."""
    from ...sif import DataType

    implied = [kind for kind, options in OPTIONS.items() if given & set(options)]
    if text is None:
        if not implied:
            hint = f"say what FILE is: {', '.join(words.TABLES['DATATYPE'])}; or --parttype overlay"
            raise UsageError("--datatype is missing", hint=hint)
        data_type = words.code(DataType, "--datatype", implied[0])
    else:
        data_type = words.code(DataType, "--datatype", text)
    for kind in implied:
        if kind != data_type.word:
            option = next(option for option in OPTIONS[kind] if option in given)
            raise UsageError(f"{option} belongs to the type {kind}, not to {data_type.word}", hint="leave one of them out")
    return data_type


def plan(later: Later, sif: SIF, wanted: Wanted, source: Source) -> tuple[int, Metadata | None]:
    """(group, metadata) of the new object, where nothing was said what fits the image. Raises UsageError, EditError."""
    group = _group(sif, wanted)
    kind = wanted.data_type.word
    meta: Metadata | None = None
    if kind == "partition":
        meta = partition = _partition(later, sif, wanted, source)
        if wanted.is_overlay:
            _look_at_overlay(later, sif, group, wanted.group)
            _look_at_others(later, sif, partition, group)
    elif kind == "signature":
        meta = _signature(wanted, source)
        look_at_signature(later, source)
    elif kind == "sbom":
        meta = _sbom(wanted, source)
    elif kind == "cryptomessage" and (wanted.format_type is not None or wanted.message_type is not None):
        meta = _crypto(wanted)
    return group, meta


def _group(sif: SIF, wanted: Wanted) -> int:
    if wanted.group is not None:
        return wanted.group
    if not wanted.is_overlay:
        return 0
    return sif.primary.group if sif.primary is not None and sif.primary.group else 1


def _look_at_overlay(later: Later, sif: SIF, group: int, given: int | None) -> None:
    root = sif.primary
    if given == 0:
        later.warn("--groupid 0: an overlay in no group; the runtimes will not find it")
    elif root is not None and root.group and group != root.group:
        later.warn(f"the overlay is in group {group}, the primary partition in {root.group}: the runtimes will not find it")
    elif root is None:
        later.warn("the image has no primary partition yet; the runtimes use an overlay only with one")


def _look_at_others(later: Later, sif: SIF, meta: PartitionMeta, group: int) -> None:
    same = [old for old in sif.overlays if old.group == group and old.fs_type == meta.fs_type]
    if same and meta.fs_type == 2:
        image = shell_word(sif.path or "IMAGE")
        text = f"object {same[0].id} is a writable overlay already, and the runtimes use the first"
        later.warn(f"{text}; to give it other content: sifkit sif replace {same[0].id} {image} FILE")


def _partition(later: Later, sif: SIF, wanted: Wanted, source: Source) -> PartitionMeta:
    from ...sif import FSType, PartitionMeta

    part_type = wanted.part_type
    if part_type is None:
        raise UsageError("--parttype is missing", hint=f"say what the partition is for: {', '.join(words.TABLES['PARTTYPE'])}")
    fs_type = check_filesystem(source, "--partfs", wanted.fs_type)
    if fs_type is None:
        hint = f"give --partfs: {', '.join(words.TABLES['FS'])}"
        if wanted.is_overlay:
            hint = "an overlay is an ext3 or squashfs image: make one with sifkit overlay create"
        raise UsageError(f"{source.label} begins with no filesystem that is known", hint=hint)
    if wanted.is_overlay and fs_type not in (FSType.EXT3, FSType.SQUASHFS):
        raise UsageError(f"an overlay is ext3 or squashfs, not {fs_type.word}", hint="the runtimes mount nothing else as one")
    if fs_type in (FSType.EXT3, FSType.SQUASHFS) and check_filesystem(source, "--partfs", None) is None:
        later.warn(f"{source.label} does not begin with the {fs_type.word} it is declared as: no runtime will mount it")
    return PartitionMeta(fs_type, part_type, _arch(sif, wanted))


def _arch(sif: SIF, wanted: Wanted) -> Arch:
    """The one given, or that of the image; an overlay alone gets the host's."""
    from ...sif import Arch

    if wanted.arch is not None:
        return wanted.arch
    for found in (sif.primary.arch if sif.primary else None, sif.header.arch):
        if isinstance(found, Arch) and found != Arch.UNKNOWN:
            return found
    host = Arch.of_machine(platform.machine())
    if wanted.is_overlay and host != Arch.UNKNOWN:
        return host
    hint = f"for example {host.word}, which is this host's" if host != Arch.UNKNOWN else "for example amd64 or arm64"
    raise UsageError("--partarch is missing: the image has no primary partition that tells it", hint=hint)


def _signature(wanted: Wanted, source: Source) -> Metadata:
    """A signature's; an envelope of a PEM key's signature has no fingerprint, of others it must be said."""
    from ...sif import SignatureMeta
    from ...sif.signatures import signature_form

    if wanted.hash_type is None:
        raise UsageError("--signhash is missing", hint=f"one of {', '.join(words.TABLES['HASH'])}")
    entity = wanted.entity
    if entity is None and signature_form(source.head) == "dsse":
        entity = b""
    if entity is None:
        raise UsageError("--signentity is missing", hint="40 digits, see gpg --fingerprint; or none, of a PEM key's signature")
    return SignatureMeta(wanted.hash_type, entity)


def look_at_signature(later: Later, source: Source) -> None:
    """Say where the content is no signature: an image with such an object does not verify."""
    from ...sif.signatures import signature_form

    if signature_form(source.head) is None:
        later.warn(f"{source.label} is no signature that runtimes know: what it is linked to will not verify")


def _sbom(wanted: Wanted, source: Source) -> Metadata:
    from ...sif import SBOMMeta
    from ...sif.sniff import sniff_sbom

    seen = sniff_sbom(source.head)
    declared = wanted.sbom_format
    if declared is None and seen is None:
        hint = f"give --sbomformat: {', '.join(words.TABLES['SBOM'])}"
        raise UsageError(f"{source.label}: its content does not tell which SBOM format it is", hint=hint)
    if declared is not None and seen is not None and seen != declared:
        raise UsageError(f"{source.label} is {seen.word}, and --sbomformat says {declared.word}", hint="leave it out")
    found = declared if declared is not None else seen
    assert found is not None
    return SBOMMeta(found)


def _crypto(wanted: Wanted) -> Metadata:
    from ...sif import CryptoMeta

    if wanted.format_type is None or wanted.message_type is None:
        missing = "--cryptoformat" if wanted.format_type is None else "--cryptomessage"
        raise UsageError(f"{missing} is missing", hint="a cryptographic message has both, or neither")
    return CryptoMeta(wanted.format_type, wanted.message_type)


def with_group(sif: SIF, data_type: DataType, group: int) -> Sequence[Descriptor]:
    """The descriptors with one more, as far as signatures care."""
    from ...sif import Descriptor
    from ...sif.format.descriptor import join_group

    ids = [descriptor.id for descriptor in sif]
    new = Descriptor(
        data_type=data_type, id=max(ids, default=0) + 1, offset=0, size=0, size_with_padding=0, created=0, modified=0
    )
    return [*sif, replace(new, group_id=join_group(group))]

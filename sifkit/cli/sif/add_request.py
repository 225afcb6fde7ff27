"""Request of ``sif add``: the options, completed from the image and from the content."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ...errors import UsageError, shell_quote
from . import codes
from .object_source import ObjectSource, check_filesystem
from .session import DeferredNotes

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

__all__ = ["AddRequest", "complete", "descriptors_after", "warn_unknown_signature"]

OPTIONS = {
    "partition": ("--parttype", "--partfs", "--partarch"),
    "signature": ("--signhash", "--signentity"),
    "sbom": ("--sbomformat",),
    "cryptomessage": ("--cryptoformat", "--cryptomessage"),
}
"""Options for one data type, by its word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRequest:
    """Parsed options; None: not given."""

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
        """Parse the options. Raises UsageError."""
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
        linked_object, linked_group = codes.link_options(link, link_group)
        return cls(
            data_type=_data_type(datatype, {option for option, text in given.items() if text is not None}),
            part_type=None if parttype is None else codes.code(PartType, "--parttype", parttype),
            fs_type=None if partfs is None else codes.code(FSType, "--partfs", partfs),
            arch=codes.optional(codes.arch, "--partarch", partarch),
            hash_type=None if signhash is None else codes.code(HashType, "--signhash", signhash),
            entity=codes.optional(codes.fingerprint, "--signentity", signentity),
            sbom_format=None if sbomformat is None else codes.code(SBOMFormat, "--sbomformat", sbomformat),
            format_type=None if cryptoformat is None else codes.code(FormatType, "--cryptoformat", cryptoformat),
            message_type=None if cryptomessage is None else codes.code(MessageType, "--cryptomessage", cryptomessage),
            group=codes.optional(codes.group, "--groupid", group),
            link=linked_object or 0,
            link_group=linked_group or 0,
            alignment=codes.optional(codes.alignment, "--alignment", alignment),
        )

    @property
    def is_overlay(self) -> bool:
        """True if the object is an overlay partition."""
        return self.part_type is not None and self.part_type.word == "overlay"


def _data_type(text: str | None, given: set[str]) -> DataType:
    """Data type, given or implied by other options. Raises UsageError for options of another type."""
    from ...sif import DataType

    implied = [kind for kind, options in OPTIONS.items() if given & set(options)]
    if text is None:
        if not implied:
            hint = f"give the type of FILE: {', '.join(codes.TABLES['DATATYPE'])}; or --parttype overlay"
            raise UsageError("--datatype is missing", hint=hint)
        data_type = codes.code(DataType, "--datatype", implied[0])
    else:
        data_type = codes.code(DataType, "--datatype", text)
    for kind in implied:
        if kind != data_type.word:
            option = next(option for option in OPTIONS[kind] if option in given)
            raise UsageError(f"{option} is for the type {kind}, not {data_type.word}", hint="omit one of them")
    return data_type


def complete(notes: DeferredNotes, sif: SIF, request: AddRequest, source: ObjectSource) -> tuple[int, Metadata | None]:
    """Return (group, metadata) of the new object, with defaults from image and content. Raises UsageError, EditError."""
    group = _group(sif, request)
    kind = request.data_type.word
    meta: Metadata | None = None
    if kind == "partition":
        meta = partition = _partition(notes, sif, request, source)
        if request.is_overlay:
            _warn_group(notes, sif, group, request.group)
            _warn_other_overlays(notes, sif, partition, group)
    elif kind == "signature":
        meta = _signature(request, source)
        warn_unknown_signature(notes, source)
    elif kind == "sbom":
        meta = _sbom(request, source)
    elif kind == "cryptomessage" and (request.format_type is not None or request.message_type is not None):
        meta = _crypto(request)
    return group, meta


def _group(sif: SIF, request: AddRequest) -> int:
    """Group given, else none; for an overlay else the primary partition's, or 1."""
    if request.group is not None:
        return request.group
    if not request.is_overlay:
        return 0
    return sif.primary.group if sif.primary is not None and sif.primary.group else 1


def _warn_group(notes: DeferredNotes, sif: SIF, group: int, given: int | None) -> None:
    root = sif.primary
    if given == 0:
        notes.warn("--groupid 0: the overlay is in no group; runtimes will not find it")
    elif root is not None and root.group and group != root.group:
        notes.warn(f"the overlay is in group {group}, the primary partition in {root.group}; runtimes will not find it")
    elif root is None:
        notes.warn("the image has no primary partition; runtimes will not use the overlay")


def _warn_other_overlays(notes: DeferredNotes, sif: SIF, meta: PartitionMeta, group: int) -> None:
    same = [old for old in sif.overlays if old.group == group and old.fs_type == meta.fs_type]
    if same and meta.fs_type == 2:
        image = shell_quote(sif.path or "IMAGE")
        text = f"object {same[0].id} is a writable overlay already, and runtimes use the first one"
        notes.warn(f"{text}; to replace it: sifkit sif replace {same[0].id} {image} FILE")


def _partition(notes: DeferredNotes, sif: SIF, request: AddRequest, source: ObjectSource) -> PartitionMeta:
    from ...sif import FSType, PartitionMeta

    part_type = request.part_type
    if part_type is None:
        raise UsageError("--parttype is missing", hint=f"give the type of the partition: {', '.join(codes.TABLES['PARTTYPE'])}")
    fs_type = check_filesystem(source, "--partfs", request.fs_type)
    if fs_type is None:
        hint = f"give --partfs: {', '.join(codes.TABLES['FS'])}"
        if request.is_overlay:
            hint = "an overlay is an ext3 or squashfs image; create one with: sifkit overlay create"
        raise UsageError(f"{source.label}: unknown filesystem", hint=hint)
    if request.is_overlay and fs_type not in (FSType.EXT3, FSType.SQUASHFS):
        raise UsageError(
            f"an overlay is ext3 or squashfs, not {fs_type.word}", hint="runtimes mount no other filesystem as an overlay"
        )
    if fs_type in (FSType.EXT3, FSType.SQUASHFS) and check_filesystem(source, "--partfs", None) is None:
        notes.warn(f"{source.label} is declared as {fs_type.word} but is not: no runtime will mount it")
    return PartitionMeta(fs_type, part_type, _arch(sif, request))


def _arch(sif: SIF, request: AddRequest) -> Arch:
    """Architecture given, else the image's; for an overlay else the host's."""
    from ...sif import Arch

    if request.arch is not None:
        return request.arch
    for found in (sif.primary.arch if sif.primary else None, sif.header.arch):
        if isinstance(found, Arch) and found != Arch.UNKNOWN:
            return found
    host = Arch.of_machine(platform.machine())
    if request.is_overlay and host != Arch.UNKNOWN:
        return host
    hint = f"for example {host.word}, as this host" if host != Arch.UNKNOWN else "for example amd64 or arm64"
    raise UsageError("--partarch is missing, and the image has no primary partition to take it from", hint=hint)


def _signature(request: AddRequest, source: ObjectSource) -> Metadata:
    """Metadata of a signature. A DSSE envelope (PEM key) has no fingerprint; for others it must be given."""
    from ...sif import SignatureMeta
    from ...sif.signatures import signature_form

    if request.hash_type is None:
        raise UsageError("--signhash is missing", hint=f"one of {', '.join(codes.TABLES['HASH'])}")
    entity = request.entity
    if entity is None and signature_form(source.head) == "dsse":
        entity = b""
    if entity is None:
        raise UsageError(
            "--signentity is missing", hint="40 digits, see gpg --fingerprint; or none, for signatures made with a PEM key"
        )
    return SignatureMeta(request.hash_type, entity)


def warn_unknown_signature(notes: DeferredNotes, source: ObjectSource) -> None:
    """Warn of content that is no signature: an image with such an object does not verify."""
    from ...sif.signatures import signature_form

    if signature_form(source.head) is None:
        notes.warn(f"{source.label}: unknown signature format; the objects it is linked to will not verify")


def _sbom(request: AddRequest, source: ObjectSource) -> Metadata:
    from ...sif import SBOMMeta
    from ...sif.sniff import sniff_sbom

    detected = sniff_sbom(source.head)
    declared = request.sbom_format
    if declared is None and detected is None:
        hint = f"give --sbomformat: {', '.join(codes.TABLES['SBOM'])}"
        raise UsageError(f"{source.label}: unknown SBOM format", hint=hint)
    if declared is not None and detected is not None and detected != declared:
        raise UsageError(f"{source.label} is {detected.word}, but --sbomformat says {declared.word}", hint="omit it")
    found = declared if declared is not None else detected
    assert found is not None
    return SBOMMeta(found)


def _crypto(request: AddRequest) -> Metadata:
    from ...sif import CryptoMeta

    if request.format_type is None or request.message_type is None:
        missing = "--cryptoformat" if request.format_type is None else "--cryptomessage"
        raise UsageError(f"{missing} is missing", hint="give both, or neither")
    return CryptoMeta(request.format_type, request.message_type)


def descriptors_after(sif: SIF, data_type: DataType, group: int) -> Sequence[Descriptor]:
    """Descriptors with the new object, as far as signatures depend on it."""
    from ...sif import Descriptor
    from ...sif.format.descriptor import join_group

    ids = [descriptor.id for descriptor in sif]
    new = Descriptor(
        data_type=data_type, id=max(ids, default=0) + 1, offset=0, size=0, size_with_padding=0, created=0, modified=0
    )
    return [*sif, new._replace(group_id=join_group(group))]

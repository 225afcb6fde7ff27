"""SIF images: reading, creating and editing them, whatever their partitions hold.

``SIF.open`` and ``SIF.create`` return an image; descriptors, metadata and codes are values. See the module ``image``. Names
are imported on first use, so that a command loads only what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checking import check as check
    from .checking import check_file as check_file
    from .compacting import CompactResult as CompactResult
    from .compacting import compact as compact
    from .errors import AmbiguousObjectError as AmbiguousObjectError
    from .errors import CorruptSIFError as CorruptSIFError
    from .errors import EditError as EditError
    from .errors import ImageFullError as ImageFullError
    from .errors import NotSIFError as NotSIFError
    from .errors import NotWritableError as NotWritableError
    from .errors import ObjectNotFoundError as ObjectNotFoundError
    from .errors import ObjectSizeError as ObjectSizeError
    from .errors import SIFError as SIFError
    from .errors import SIFSourceError as SIFSourceError
    from .errors import SIFSourceError as SourceError
    from .errors import SourceChangedError as SourceChangedError
    from .errors import StoreError as StoreError
    from .errors import TruncatedSIFError as TruncatedError
    from .errors import TruncatedSIFError as TruncatedSIFError
    from .errors import UnknownCodeError as UnknownCodeError
    from .finding import Finding as Finding
    from .finding import Problem as Problem
    from .finding import Severity as Severity
    from .format.descriptor import Descriptor as Descriptor
    from .format.header import YEAR_ONE as YEAR_ONE
    from .format.header import GlobalHeader as GlobalHeader
    from .format.metadata import CryptoMeta as CryptoMeta
    from .format.metadata import Metadata as Metadata
    from .format.metadata import OCIMeta as OCIMeta
    from .format.metadata import PartitionMeta as PartitionMeta
    from .format.metadata import SBOMMeta as SBOMMeta
    from .format.metadata import SignatureMeta as SignatureMeta
    from .format.types import Arch as Arch
    from .format.types import DataType as DataType
    from .format.types import FormatType as FormatType
    from .format.types import FSType as FSType
    from .format.types import HashType as HashType
    from .format.types import MessageType as MessageType
    from .format.types import PartType as PartType
    from .format.types import SBOMFormat as SBOMFormat
    from .format.types import describe as describe
    from .format.types import word_of as word_of
    from .image import SIF as SIF
    from .pack.manifest import ManifestError as ManifestError
    from .pack.packing import PackResult as PackResult
    from .pack.packing import pack as pack
    from .pack.unpacking import MANIFEST_NAME as MANIFEST_NAME
    from .pack.unpacking import unpack as unpack
    from .plan import UNCHANGED as UNCHANGED
    from .plan import Change as Change
    from .plan import ObjectFields as ObjectFields
    from .repairing import repair as repair
    from .sniff import filesystem_name as filesystem_name
    from .sniff import is_text as is_text
    from .sniff import sniff_filesystem as sniff_filesystem
    from .sniff import sniff_sbom as sniff_sbom
    from .stamp import NIL_UUID as NIL_UUID
    from .stamp import SIFStamp as SIFStamp
    from .stamp import SIFStamp as Stamp
    from .state import Notice as Notice
    from .writing import Reservation as Reservation

__all__ = [
    "MANIFEST_NAME",
    "NIL_UUID",
    "SIF",
    "UNCHANGED",
    "YEAR_ONE",
    "AmbiguousObjectError",
    "Arch",
    "Change",
    "CompactResult",
    "CorruptSIFError",
    "CryptoMeta",
    "DataType",
    "Descriptor",
    "EditError",
    "FSType",
    "Finding",
    "FormatType",
    "GlobalHeader",
    "HashType",
    "ImageFullError",
    "ManifestError",
    "MessageType",
    "Metadata",
    "NotSIFError",
    "NotWritableError",
    "Notice",
    "OCIMeta",
    "ObjectFields",
    "ObjectNotFoundError",
    "ObjectSizeError",
    "PackResult",
    "PartType",
    "PartitionMeta",
    "Problem",
    "Reservation",
    "SBOMFormat",
    "SBOMMeta",
    "SIFError",
    "Severity",
    "SignatureMeta",
    "SourceChangedError",
    "SIFSourceError",
    "SourceError",
    "SIFStamp",
    "Stamp",
    "StoreError",
    "TruncatedSIFError",
    "TruncatedError",
    "UnknownCodeError",
    "check",
    "check_file",
    "compact",
    "describe",
    "filesystem_name",
    "is_text",
    "pack",
    "repair",
    "sniff_filesystem",
    "sniff_sbom",
    "unpack",
    "word_of",
]

_MODULE_OF = {
    "AmbiguousObjectError": ".errors",
    "Arch": ".format.types",
    "Change": ".plan",
    "CompactResult": ".compacting",
    "CorruptSIFError": ".errors",
    "CryptoMeta": ".format.metadata",
    "DataType": ".format.types",
    "Descriptor": ".format.descriptor",
    "EditError": ".errors",
    "FSType": ".format.types",
    "Finding": ".finding",
    "FormatType": ".format.types",
    "GlobalHeader": ".format.header",
    "HashType": ".format.types",
    "ImageFullError": ".errors",
    "MANIFEST_NAME": ".pack.unpacking",
    "ManifestError": ".pack.manifest",
    "MessageType": ".format.types",
    "Metadata": ".format.metadata",
    "NIL_UUID": ".stamp",
    "NotSIFError": ".errors",
    "NotWritableError": ".errors",
    "Notice": ".state",
    "OCIMeta": ".format.metadata",
    "ObjectFields": ".plan",
    "ObjectNotFoundError": ".errors",
    "ObjectSizeError": ".errors",
    "PackResult": ".pack.packing",
    "PartType": ".format.types",
    "PartitionMeta": ".format.metadata",
    "Problem": ".finding",
    "Reservation": ".writing",
    "SBOMFormat": ".format.types",
    "SBOMMeta": ".format.metadata",
    "SIF": ".image",
    "SIFError": ".errors",
    "Severity": ".finding",
    "SignatureMeta": ".format.metadata",
    "SourceChangedError": ".errors",
    "SIFSourceError": ".errors",
    "SIFStamp": ".stamp",
    "StoreError": ".errors",
    "TruncatedSIFError": ".errors",
    "UNCHANGED": ".plan",
    "UnknownCodeError": ".errors",
    "YEAR_ONE": ".format.header",
    "check": ".checking",
    "check_file": ".checking",
    "compact": ".compacting",
    "describe": ".format.types",
    "filesystem_name": ".sniff",
    "is_text": ".sniff",
    "pack": ".pack.packing",
    "repair": ".repairing",
    "sniff_filesystem": ".sniff",
    "sniff_sbom": ".sniff",
    "unpack": ".pack.unpacking",
    "word_of": ".format.types",
}


_ALIASES = {"SourceError": "SIFSourceError", "Stamp": "SIFStamp", "TruncatedError": "TruncatedSIFError"}
"""Names of release 0.1, by which other packages of the project mean other classes."""


def __getattr__(name: str) -> object:
    wanted = _ALIASES.get(name, name)
    if wanted not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_MODULE_OF[wanted], __name__), wanted)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""SIF images: read, write and edit them. Knows nothing of what the partitions hold.

``SIF.open`` and ``SIF.create`` give an image; descriptors, metadata and codes are values. See the module ``image``. Names are
imported when they are first used: a command pays for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checking import check as check
    from .checking import check_file as check_file
    from .compacting import CompactResult as CompactResult
    from .compacting import compact as compact
    from .descriptor import Descriptor as Descriptor
    from .errors import AmbiguousObjectError as AmbiguousObjectError
    from .errors import CorruptSIFError as CorruptSIFError
    from .errors import EditError as EditError
    from .errors import ImageFullError as ImageFullError
    from .errors import NotSIFError as NotSIFError
    from .errors import NotWritableError as NotWritableError
    from .errors import ObjectNotFoundError as ObjectNotFoundError
    from .errors import ObjectSizeError as ObjectSizeError
    from .errors import SIFError as SIFError
    from .errors import SourceChangedError as SourceChangedError
    from .errors import SourceError as SourceError
    from .errors import StoreError as StoreError
    from .errors import TruncatedError as TruncatedError
    from .errors import UnknownCodeError as UnknownCodeError
    from .finding import Finding as Finding
    from .finding import Problem as Problem
    from .finding import Severity as Severity
    from .header import NIL_UUID as NIL_UUID
    from .header import YEAR_ONE as YEAR_ONE
    from .header import GlobalHeader as GlobalHeader
    from .image import SIF as SIF
    from .manifest import ManifestError as ManifestError
    from .metadata import CryptoMeta as CryptoMeta
    from .metadata import Metadata as Metadata
    from .metadata import OCIMeta as OCIMeta
    from .metadata import PartitionMeta as PartitionMeta
    from .metadata import SBOMMeta as SBOMMeta
    from .metadata import SignatureMeta as SignatureMeta
    from .packing import PackResult as PackResult
    from .packing import pack as pack
    from .plan import UNCHANGED as UNCHANGED
    from .plan import Change as Change
    from .plan import ObjectFields as ObjectFields
    from .repairing import repair as repair
    from .sniff import filesystem_name as filesystem_name
    from .sniff import is_text as is_text
    from .sniff import sniff_filesystem as sniff_filesystem
    from .sniff import sniff_sbom as sniff_sbom
    from .stamp import Stamp as Stamp
    from .state import Notice as Notice
    from .types import Arch as Arch
    from .types import DataType as DataType
    from .types import FormatType as FormatType
    from .types import FSType as FSType
    from .types import HashType as HashType
    from .types import MessageType as MessageType
    from .types import PartType as PartType
    from .types import SBOMFormat as SBOMFormat
    from .types import describe as describe
    from .types import word_of as word_of
    from .unpacking import MANIFEST_NAME as MANIFEST_NAME
    from .unpacking import unpack as unpack
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
    "SourceError",
    "Stamp",
    "StoreError",
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
    "Arch": ".types",
    "Change": ".plan",
    "CompactResult": ".compacting",
    "CorruptSIFError": ".errors",
    "CryptoMeta": ".metadata",
    "DataType": ".types",
    "Descriptor": ".descriptor",
    "EditError": ".errors",
    "FSType": ".types",
    "Finding": ".finding",
    "FormatType": ".types",
    "GlobalHeader": ".header",
    "HashType": ".types",
    "ImageFullError": ".errors",
    "MANIFEST_NAME": ".unpacking",
    "ManifestError": ".manifest",
    "MessageType": ".types",
    "Metadata": ".metadata",
    "NIL_UUID": ".header",
    "NotSIFError": ".errors",
    "NotWritableError": ".errors",
    "Notice": ".state",
    "OCIMeta": ".metadata",
    "ObjectFields": ".plan",
    "ObjectNotFoundError": ".errors",
    "ObjectSizeError": ".errors",
    "PackResult": ".packing",
    "PartType": ".types",
    "PartitionMeta": ".metadata",
    "Problem": ".finding",
    "Reservation": ".writing",
    "SBOMFormat": ".types",
    "SBOMMeta": ".metadata",
    "SIF": ".image",
    "SIFError": ".errors",
    "Severity": ".finding",
    "SignatureMeta": ".metadata",
    "SourceChangedError": ".errors",
    "SourceError": ".errors",
    "Stamp": ".stamp",
    "StoreError": ".errors",
    "TruncatedError": ".errors",
    "UNCHANGED": ".plan",
    "UnknownCodeError": ".errors",
    "YEAR_ONE": ".header",
    "check": ".checking",
    "check_file": ".checking",
    "compact": ".compacting",
    "describe": ".types",
    "filesystem_name": ".sniff",
    "is_text": ".sniff",
    "pack": ".packing",
    "repair": ".repairing",
    "sniff_filesystem": ".sniff",
    "sniff_sbom": ".sniff",
    "unpack": ".unpacking",
    "word_of": ".types",
}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULE_OF[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

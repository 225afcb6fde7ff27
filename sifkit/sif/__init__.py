"""SIF images: read, write and edit them. Knows nothing of what the partitions hold.

``SIF.open`` and ``SIF.create`` give an image; descriptors, metadata and codes are values. See the module ``image``.
"""

from __future__ import annotations

from .check import check, check_file
from .compact import CompactResult, compact
from .descriptor import Descriptor
from .errors import (
    AmbiguousObjectError,
    CorruptSIFError,
    EditError,
    ImageFullError,
    NotSIFError,
    NotWritableError,
    ObjectNotFoundError,
    ObjectSizeError,
    SIFError,
    SourceChangedError,
    SourceError,
    StoreError,
    TruncatedError,
    UnknownCodeError,
)
from .finding import Finding, Problem, Severity
from .header import NIL_UUID, YEAR_ONE, GlobalHeader
from .image import SIF
from .manifest import ManifestError
from .metadata import CryptoMeta, Metadata, OCIMeta, PartitionMeta, SBOMMeta, SignatureMeta
from .pack import PackResult, pack
from .plan import UNCHANGED, Change
from .repair import repair
from .sniff import filesystem_name, is_text, sniff_filesystem, sniff_sbom
from .stamp import Stamp
from .state import Notice
from .types import (
    Arch,
    DataType,
    FormatType,
    FSType,
    HashType,
    MessageType,
    PartType,
    SBOMFormat,
    describe,
    word_of,
)
from .unpack import MANIFEST_NAME, unpack
from .writing import Reservation

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

"""What kind of file holds an image: one table of suffixes and first bytes.

A file with a suffix of a kind that is read is taken for what that says; any other is looked at. A new kind of image is
a row here, and a way to read it in `smalti.images.layers`.
"""

import functools
import os
import re
from dataclasses import dataclass

HEAD_BYTES = 32  # of a file tell its kind


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: of the kind.
        suffixes: of its files, in lower case, with spaces between them.
        head: a pattern of what such a file begins with; without one only the suffix tells.
        remedy: how to make it an image that smalti reads; empty where it is one.
        is_heif: whether the remedy is pillow-heif, with which it is read.
    """

    name: str
    suffixes: str
    head: bytes = b"(?!)"  # matches nothing
    remedy: str = ""
    is_heif: bool = False

    @property
    def is_read(self) -> bool:
        """Whether smalti reads it, as it is installed here."""
        return register_heif() if self.is_heif else not self.remedy


CONVERT = "convert them, as to PNG"
KINDS = (
    Kind("PNG", ".png .apng", rb"\x89PNG\r\n\x1a\n"),
    Kind("JPEG", ".jpg .jpeg .jpe .jfif .jif .mpo", rb"\xff\xd8\xff"),
    Kind("WebP", ".webp", rb"RIFF.{4}WEBP"),
    Kind("GIF", ".gif", rb"GIF8[79]a"),
    Kind("AVIF", ".avif .avifs", rb".{4}ftyp(.{8})?(.{4})*avi[fs]"),
    Kind("JPEG 2000", ".jp2 .j2k .jpc .jpf .jpx .j2c", rb".{4}jP  \r\n|\xff\x4f\xff\x51"),
    Kind("BMP", ".bmp .dib", rb"BM.{4}\0{4}"),
    Kind("PNM", ".ppm .pgm .pbm .pnm .pfm", rb"P[1-6]\s"),
    Kind("TGA", ".tga .icb .vda .vst"),
    Kind("QOI", ".qoi", rb"qoif"),
    Kind("DDS", ".dds", rb"DDS \x7c"),
    Kind("PSD", ".psd", rb"8BPS\0"),
    Kind("PCX", ".pcx"),
    Kind("SGI", ".sgi", rb"\x01\xda[\0\x01][\x01\x02]"),
    Kind("icon", ".ico .icns", rb"\0\0\x01\0[^\0]\0|icns"),
    Kind("HEIF", ".heic .heif .hif", rb".{4}ftyp(hei[cxms]|hev[cx]|m[is]f1)", "pip install 'smalti[heif]'", True),
    Kind("JPEG XL", ".jxl", rb"\xff\x0a|.{4}JXL \r\n", CONVERT),
    Kind("drawing", ".svg .svgz .eps .ps .wmf .emf .pdf", rb"%PDF|%!PS|<svg", CONVERT),
    Kind("DICOM", ".dcm .dicom", b"(?!)", CONVERT),
    Kind(
        "raw",
        ".dng .nef .nrw .cr2 .cr3 .arw .sr2 .orf .rw2 .pef .srw .raf .raw",
        rb"FUJIFILMCCD-RAW|II\*\0.{4}CR|IIRO|IIU\0|.{4}ftypcrx ",
        "develop them, as to PNG",
    ),
    Kind("TIFF", ".tif .tiff", rb"II[*+]\0|MM\0[*+]"),
    Kind("array", ".npy", rb"\x93NUMPY"),
    Kind("archive", ".zip .tar .tgz .rar .7z", rb"PK\x03\x04|Rar!|7z\xbc\xaf", "unpack them"),
)
BY_SUFFIX = {suffix: kind for kind in KINDS for suffix in kind.suffixes.split()}
TEXTS = frozenset((".txt", ".caption", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".parquet", ".npz", ".smalti"))
_HEADS = [(re.compile(kind.head, re.DOTALL), kind) for kind in KINDS]


def kind_of_bytes(head: bytes) -> Kind | None:
    """The kind of a file that begins so; None of what is none in the table."""
    return next((kind for pattern, kind in _HEADS if pattern.match(head[:HEAD_BYTES])), None)


def kind_of(path: str) -> Kind | None:
    """The kind of a file: by its suffix, or where that says nothing that is read by its first bytes.

    A JPEG called .heic is a JPEG. What begins like TIFF is what its suffix says: so do most raw files.

    Raises:
        OSError: it must be looked at and cannot be opened.
    """
    suffix = suffix_of(path)
    kind = BY_SUFFIX.get(suffix)
    if suffix in TEXTS or (kind and kind.is_read):
        return kind
    with open(path, "rb", buffering=0) as file:
        found = kind_of_bytes(file.read(HEAD_BYTES))
    return kind if kind and not (found and found.is_read and found.name != "TIFF") else found


def suffix_of(name: str) -> str:
    """The suffix of a name in lower case, ".png"; empty where it has none."""
    return os.path.splitext(name)[1].lower()


@functools.cache
def register_heif() -> bool:
    """Let Pillow read HEIF by pillow-heif; whether that is installed."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True

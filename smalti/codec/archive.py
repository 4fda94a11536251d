"""An open .smalti file: what is in it, found without a model."""

import io
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from smalti.codec.container import Header, Sections
from smalti.codec.errors import DamagedFile
from smalti.codec.tables import ImageEntry, chunks_of
from smalti.errors import SmaltiError


class Archive:
    """An open .smalti file: its header, and its chunks one by one.

    Args:
        file: opened for reading in binary, seekable; closed with the archive.

    Raises:
        DamagedFile: not such a file, cut off, changed, or with something behind it.
    """

    def __init__(self, file: BinaryIO):
        self.file, size = file, file.seek(0, io.SEEK_END)
        file.seek(0)
        self.header, self.start = Header.read(file, size), file.tell()
        self.images = self.header.images
        self.chunks = chunks_of(self.images, self.header.images_per_chunk)
        self.starts = [*accumulate(self.header.chunk_bytes, initial=self.start)]
        end = self.starts[-1]
        if size < end:
            raise DamagedFile(f"cut off: it should have {end} bytes and has {size}")
        if size > end:
            raise DamagedFile(f"{size - end} bytes behind the end, which do not belong to it")

    @classmethod
    def open(cls, path: Path | str) -> "Archive":
        """Open a file by its path."""
        path = Path(path)
        if not path.is_file():
            raise SmaltiError(f"{path} does not exist")
        file = path.open("rb")
        try:
            return cls(file)
        except DamagedFile as error:
            file.close()
            raise DamagedFile(f"{path}: {error}") from error

    def __len__(self) -> int:
        return len(self.header.images)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def kinds(self) -> dict[ImageEntry, int]:
        """How many images there are of each size and mode, without their names."""
        return self.images.kinds()

    def entries(self, number: int) -> list[ImageEntry]:
        """What the header says of the images of a chunk."""
        return [self.images[index] for index in self.chunks[number]]

    def sections(self, number: int) -> Sections:
        """A chunk, taken apart; its checksum is not checked."""
        self.file.seek(self.starts[number])
        num_alphas = self.images.num_transparent(self.chunks[number])
        return Sections.unpack(
            self.file.read(self.header.chunk_bytes[number]), num_alphas, lossless=self.header.lossless
        )

    def parts(self) -> dict[str, int]:
        """Where the bytes of the file went."""
        chunks = [self.sections(number) for number in range(len(self.chunks))]
        parts = {
            "header": self.start,
            "codes": sum(len(chunk.stream) for chunk in chunks),
            "alpha": sum(len(part) for chunk in chunks for part in chunk.alphas),
            "pixels": sum(len(part) for chunk in chunks for part in chunk.pixels),
        }
        return {**parts, "checks": self.starts[-1] - sum(parts.values())}

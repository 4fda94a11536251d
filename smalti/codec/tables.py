"""What a file says of its images, kept as it stands there: a million of them take no longer to open than they must."""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from smalti.codec.errors import DamagedFile
from smalti.codec.limits import NAME_BYTES, PIXELS, PIXELS_IN_CHUNK, PROFILE_BYTES, SIDE, within
from smalti.codec.varints import Names, TableReader, sized, varint
from smalti.errors import SmaltiError

SURROGATES = re.compile("[\ud800-\udfff]")
MODES = ("RGB", "L", "RGBA", "LA")


class ImageEntry(NamedTuple):
    """What a file says of one image."""

    height: int
    width: int
    mode: str  # of MODES
    name: str = ""
    profile: bytes = b""  # ICC

    @property
    def channels(self) -> int:
        """1 if it is grey, or 3."""
        return 1 if self.mode in ("L", "LA") else 3

    @property
    def transparent(self) -> bool:
        """Whether it has an opacity."""
        return self.mode in ("RGBA", "LA")

    @property
    def num_pixels(self) -> int:
        """H * W."""
        return self.height * self.width

    def pack(self) -> bytes:
        """Size and mode, as they stand in the header and enter the chunk's checksum."""
        return varint(self.height, self.width, MODES.index(self.mode))

    def checked(self) -> Self:
        """Itself, if a file can hold it: its name in UTF-8, where it is not yet.

        Raises:
            SmaltiError: too large, empty, with a profile or a name too long, or with NUL in it.
        """
        within(max(self.height, self.width), SIDE)
        within(self.num_pixels, PIXELS)
        within(len(self.profile), PROFILE_BYTES, least=0)
        name = SURROGATES.sub("\N{REPLACEMENT CHARACTER}", self.name)  # bytes of a file's name that are not UTF-8
        within(len(name.encode()), NAME_BYTES, least=0)
        if "\0" in name:
            raise SmaltiError(f"the name {name[:60]!r} contains NUL; give another")
        return self._replace(name=name)


class ImageTable(Sequence[ImageEntry]):
    """The entries of a file's images, made when they are asked for.

    Args:
        count: of the images.
        sizes: (count, 3) height, width and number of the mode, or (1, 3) that all have.
        names: of the images, or none.
        profiles: of the images, or none.
    """

    def __init__(
        self,
        count: int,
        sizes: NDArray[np.int64],
        names: Names | Sequence[str] | None = None,
        profiles: "Profiles | Sequence[bytes] | None" = None,
    ):
        self._count, self._names, self._profiles, self.same = count, names, profiles, len(sizes) < count
        self._sizes = sizes.astype(np.int32)

    @classmethod
    def of(cls, entries: Sequence[ImageEntry]) -> Self:
        """The table of some entries."""
        sizes = [(entry.height, entry.width, MODES.index(entry.mode)) for entry in entries]
        names, profiles = [entry.name for entry in entries], [entry.profile for entry in entries]
        return cls(len(entries), np.array(sizes, np.int64).reshape(-1, 3), names, profiles)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ImageEntry: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ImageEntry, ...]: ...

    def __getitem__(self, index: int | slice) -> ImageEntry | tuple[ImageEntry, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(self._count)))
        place = range(self._count)[index]
        height, width, mode = self._sizes[0 if self.same else place].tolist()
        name = self._names[place] if self._names else ""
        return ImageEntry(height, width, MODES[mode], name, self._profiles[place] if self._profiles else b"")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageTable) and len(self) == len(other) and all(map(ImageEntry.__eq__, self, other))

    def __hash__(self) -> int:
        return hash((len(self), self[0]))

    def kinds(self) -> dict[ImageEntry, int]:
        """How many images there are of each size and mode; without names and profiles."""
        if self.same:
            return {self[0]._replace(name="", profile=b""): len(self)}
        bases = np.array([SIDE.most + 1, len(MODES)])
        numbers = (self._sizes[:, 0] * bases[0] + self._sizes[:, 1]) * bases[1] + self._sizes[:, 2]
        _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
        return {
            self[place]._replace(name="", profile=b""): count
            for place, count in zip(first.tolist(), counts.tolist(), strict=True)
        }

    def num_transparent(self, members: range) -> int:
        """How many of some consecutive images have an opacity."""
        if self.same:
            return len(members) * self[0].transparent
        modes = self._sizes[members.start : members.stop, 2]
        return sum(int((modes == number).sum()) for number, mode in enumerate(MODES) if "A" in mode)

    @property
    def num_pixels(self) -> NDArray[np.int64]:
        """H * W of all images, (count,); or (1,), if they have one size."""
        return self._sizes[:, 0].astype(np.int64) * self._sizes[:, 1]


class Profiles:
    """ICC profiles of images, of which many have the same one."""

    def __init__(self, different: Sequence[bytes], numbers: NDArray[np.int64]):
        self._choice, self._numbers = [b"", *different], numbers

    def __getitem__(self, index: int) -> bytes:
        return self._choice[self._numbers[index]]


def pack_profiles(profiles: Sequence[bytes]) -> bytes:
    """ICC profiles of images, each different one once: how many there are, all, and which an image has (0: none)."""
    different = [profile for profile in dict.fromkeys(profiles) if profile]
    numbers = {profile: number for number, profile in enumerate([b"", *different])}
    return varint(len(different)) + b"".join(map(sized, different)) + varint(*(numbers[own] for own in profiles))


def unpack_profiles(reader: TableReader, count: int) -> Profiles:
    """What `pack_profiles` packed, of `count` images; a DamagedFile, if it cannot be that."""
    different = [reader.sized(PROFILE_BYTES.most) for _ in range(reader.number(count))]
    return Profiles(different, reader.numbers(count, len(different)))


def chunks_of(images: Sequence[ImageEntry], images_per_chunk: int, most: int | None = None) -> list[range]:
    """Which images share a chunk: at most so many, and at most about 16 million pixels.

    Raises:
        DamagedFile: more than `most` chunks.
    """
    ends, count = [0], len(images)
    if isinstance(images, ImageTable):
        pixels = images.num_pixels
    else:
        pixels = np.array([image.num_pixels for image in images], np.int64)
    total = np.concatenate([[0], pixels.cumsum()])
    while ends[-1] < count:
        start = ends[-1]
        if len(pixels) < count:  # all alike
            fits = start + PIXELS_IN_CHUNK // int(pixels[0])
        else:
            fits = int(total.searchsorted(total[start] + PIXELS_IN_CHUNK, side="right")) - 1
        ends.append(min(count, max(start + 1, min(fits, start + images_per_chunk))))
        if most is not None and len(ends) > most + 1:
            raise DamagedFile(f"cut off: {count} images take more than {most} chunks")
    return [range(*pair) for pair in pairwise(ends)]

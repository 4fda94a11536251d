"""How many values the columns of a parquet file have, read off its footer.

pyarrow knows it too, but ends the process where the statistics of a column are damaged: its `RowGroupMetaData.column`
lets no C++ exception through. The footer is a struct in Thrift's compact protocol [1]; of what it says [2] the counts
and sizes of columns are taken.

References:
    [1] Apache Thrift: Thrift compact protocol encoding
    [2] Apache Parquet: the Thrift definition of the format
"""

from collections import Counter
from pathlib import Path
from typing import Any

MAGIC = b"PAR1"
MOST_BYTES = 1 << 26
DEPTH = 12  # of structs and lists inside each other; parquet's own have fewer
ROW_GROUPS, COLUMNS, ABOUT, PATH, VALUES, BYTES = 4, 1, 3, 3, 5, 6  # numbers of fields, on the way down
BOOLEANS, BYTE, DOUBLE, BINARY, LISTS, MAP, STRUCT = (1, 2), 3, 7, 8, (9, 10), 11, 12


def column_counts(path: Path) -> tuple[Counter[str], Counter[str]]:
    """How many values each column has in all row groups, and how many bytes they are said to be uncompressed.

    Raises:
        ValueError: no parquet file, or a footer that says something else.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length > min(MOST_BYTES, size - 12):
            raise ValueError("no footer of a parquet file")
        file.seek(size - 8 - length)
        footer = _Compact(file.read(length)).struct()
    values, sizes = Counter[str](), Counter[str]()
    try:
        for group in footer[ROW_GROUPS]:
            for column in group[COLUMNS]:
                about = column[ABOUT]
                name = about[PATH][0].decode()
                values[name] += about[VALUES]
                sizes[name] += about[BYTES]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"a footer without what columns have ({error!r})") from error
    if min((*values.values(), *sizes.values(), 0)) < 0:
        raise ValueError("a column with fewer than no values")
    return values, sizes


class _Compact:
    """Values in Thrift's compact protocol: a struct is a dict from the numbers of its fields."""

    def __init__(self, data: bytes):
        self._data, self._place = data, 0

    def struct(self, depth: int = DEPTH) -> dict[int, Any]:
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            found[field] = kind == BOOLEANS[0] if kind in BOOLEANS else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if not depth:
            raise ValueError("a footer of structs inside structs")
        if kind in BOOLEANS or kind == BYTE:
            return self._byte()
        if kind < DOUBLE:
            return self._signed()
        if kind == DOUBLE:
            return self._take(8)
        if kind == BINARY:
            return self._take(self._number())
        if kind in LISTS:
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._number()
            return [self._value(head & 15, depth - 1) for _ in range(self._within(count))]
        if kind == MAP:
            count = self._within(self._number())
            kinds = self._byte() if count else 0
            return [(self._value(kinds >> 4, depth - 1), self._value(kinds & 15, depth - 1)) for _ in range(count)]
        if kind == STRUCT:
            return self.struct(depth - 1)
        raise ValueError(f"a footer with a value of type {kind}")

    def _within(self, count: int) -> int:
        """A count of values, each of which takes a byte at least."""
        if count > len(self._data) - self._place:
            raise ValueError("a footer that is cut off")
        return count

    def _take(self, count: int) -> bytes:
        self._place += self._within(count)
        return self._data[self._place - count : self._place]

    def _byte(self) -> int:
        return self._take(1)[0]

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a footer with a number of more than 64 bits")

    def _signed(self) -> int:
        value = self._number()
        return value >> 1 ^ -(value & 1)

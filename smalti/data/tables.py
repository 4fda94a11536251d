"""Tables of captions, splits and classes beside images, as people have them: metadata.csv, .tsv, .jsonl, .parquet."""

import ast
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from smalti.data.splits import VALUES, split_of_value
from smalti.errors import SmaltiError
from smalti.images.folders import shown

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
COLUMNS = {  # by what they hold; of several names of a kind the first counts
    "file": "file_name filename file image path image_path file_path filepath image_file image_name img"
    " image_file_name image_id imageid",
    "text": "text caption captions prompt texts prompts description sentence sentences alt_text alt title comment",
    "split": "split",
    "perhaps": "subset partition set data_split fold phase usage is_test is_train",  # where all words are splits
    "label": "label class category labels class_name fine_label",
}
ALIASES = {alias: (order, kind) for kind, names in COLUMNS.items() for order, alias in enumerate(names.split())}
NOTHING = frozenset(("", "null", "none", "nan", "n/a", "<na>", "#n/a"))  # no caption
DELIMITERS = ",;\t|"
LANGUAGE = "en"  # of captions without a language
NESTED = 3  # lists and records in a cell


class Row(NamedTuple):
    """What a row says of a file: captions with their languages, a split, a class; "" and nothing where it does not."""

    number: int
    file: str
    captions: Sequence[tuple[str, str]] = ()
    split: str | None = None
    label: str = ""


class Table(NamedTuple):
    """The rows of a table, and what is odd about it, a sentence each."""

    rows: Sequence[Row]
    notes: Sequence[str] = ()


def is_table(name: str) -> bool:
    """Whether a file is called as a table that is read."""
    stem, dot, suffix = name.rpartition("/")[2].lower().rpartition(".")
    return stem == "metadata" and dot + suffix in SUFFIXES


def read_table(path: Path, name: str) -> Table:
    """Read a table; in an error and a note it is called by its name.

    Raises:
        SmaltiError: cut off or damaged, with the row; no column of file names; a split that is no word for one.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            records = _parquet_records(path)
        else:
            text = decoded(path.read_bytes(), shown(name))
            records = _csv_records(text) if suffix in (".csv", ".tsv") else _json_records(text)
        return _rows(list(records), shown(name))
    except _Damage as error:
        raise SmaltiError(f"{shown(name)}: {error}; it needs the columns file_name and text or split") from error
    except OSError as error:
        raise SmaltiError(f"{shown(name)}: cannot be read ({error.strerror})") from error


class _Damage(ValueError):
    """What is wrong with a table, with the row."""


def decoded(data: bytes, name: str) -> str:
    """The text of a file, UTF-8 or with a mark UTF-16 or UTF-32; UTF-16 without one if every other byte is zero.

    Raises:
        SmaltiError: other bytes; the line is named.
    """
    marks = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    encoding = next((encoding for mark, encoding in marks.items() if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data[:4]:
        encoding = "utf-16-be" if data[0] == 0 else "utf-16-le"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SmaltiError(f"{name}: line {line} is not {encoding[:6].upper().rstrip('-')}; save it as UTF-8") from error
    if "\0" in text:
        raise SmaltiError(
            f"{name}: line {text[: text.index(chr(0))].count(chr(10)) + 1} holds a zero byte; save it anew"
        )
    return text


# ------------------------------------------------------------------ records: (columns that nothing fits, cells by kind)


class _Record(NamedTuple):
    cells: Mapping[str, Any]  # by kind of column
    is_long: bool = False  # more cells than columns: which is which?


def kinds_of(names: Sequence[Any]) -> dict[str, Any]:
    """The column of each kind, by its name; of several the first of `COLUMNS`."""
    found: dict[str, tuple[int, Any]] = {}
    for name in names:
        order, kind = ALIASES.get(re.sub(r"[\s-]+", "_", str(name).strip().casefold()), (0, ""))
        if kind and (kind not in found or order < found[kind][0]):
            found[kind] = (order, name)
    return {kind: name for kind, (_, name) in found.items()}


def _checked_kinds(names: Sequence[Any]) -> dict[str, Any]:
    kinds = kinds_of(names)
    is_first_row = any(re.search(r"\.\w{3,4}$", str(name)) for name in names)  # of a table without names of columns
    if "file" not in kinds and (is_first_row or kinds.keys() & {"text", "split"}):
        told = ", ".join(shown(str(name), 20) for name in names[:6])
        raise _Damage(f"its columns are {told}")
    return kinds


def _csv_records(text: str) -> Iterator[_Record]:
    lines, delimiters = text.lstrip("\r\n"), DELIMITERS
    if told := re.match(r"sep=(.)\s*?(\r\n|\n|\r)", lines):  # a spreadsheet's first line
        lines, delimiters = lines[told.end() :], told[1]
    first = re.split(r"[\r\n]", lines, maxsplit=1)[0]
    headers = [(delimiter, _cells_of(first, delimiter)) for delimiter in delimiters]
    delimiter, header = max(headers, key=lambda found: len(kinds_of(found[1])))
    kinds, number = _checked_kinds(header), 0
    try:
        for number, row in enumerate(filter(any, _reader(lines, delimiter))):
            while len(row) > len(header) and not row[-1].strip():
                row.pop()
            if number:
                by_name = dict(zip(header, row, strict=False))
                yield _Record({kind: by_name.get(column) for kind, column in kinds.items()}, len(row) > len(header))
    except csv.Error as error:
        raise _Damage(f"row {number + 1}: {error}; put what has commas, quotes or new lines in quotes") from error


def _reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)


def _cells_of(line: str, delimiter: str) -> list[str]:
    """The cells of a line; none where the delimiter does not fit."""
    try:
        return next(_reader(line, delimiter), [])
    except csv.Error:
        return []


def _json_records(text: str) -> Iterator[_Record]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _lines(text)
    if isinstance(value, Mapping):
        value = _of_object(value)
    if not isinstance(value, list):
        raise _Damage("it holds neither a list nor an object")
    for number, record in enumerate(value, 1):
        if not isinstance(record, Mapping):
            raise _Damage(f"row {number} is no object")
        kinds = _checked_kinds(list(record))
        yield _Record({kind: record[name] for kind, name in kinds.items()})


def _lines(text: str) -> list[Any]:
    """One value a line."""
    values: list[Any] = []
    try:
        for line in filter(str.strip, text.split("\n")):
            values.append(json.loads(line))
    except (ValueError, RecursionError) as error:
        told = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _Damage(f"row {len(values) + 1}: {shown(told, 80)}") from error
    return values


def _of_object(value: Mapping[str, Any]) -> list[Any]:
    """The records of an object: one itself; columns; a list under some name; file names with what is said of each."""
    kinds = kinds_of(list(value))
    if "file" in kinds:
        columns = {kind: value[name] for kind, name in kinds.items()}
        if all(isinstance(column, Mapping) for column in columns.values()):  # by keys of rows, as pandas writes them
            rows = columns["file"]
            return [{kind: own.get(row) for kind, own in columns.items()} for row in rows]
        if not all(isinstance(column, list) for column in columns.values()):
            return [value]
        if len({len(column) for column in columns.values()}) > 1:
            raise _Damage("its columns have different lengths")
        return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if isinstance(names := value.get("columns"), list) and isinstance(rows := value.get("data"), list):
        return [dict(zip(map(str, names), row, strict=False)) if isinstance(row, list) else row for row in rows]
    if kinds.keys() & {"text", "split"} and any("file" in str(name) for name in value):
        _checked_kinds(list(value))
    for under in ("data", "rows", "images", "annotations"):
        if isinstance(value.get(under), list):
            return value[under]
    return [{"file": name, **(own if isinstance(own, Mapping) else {"text": own})} for name, own in value.items()]


def _parquet_records(path: Path) -> Iterator[_Record]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise SmaltiError(f"{path}: reading parquet needs pyarrow: pip install 'smalti[data]'") from error
    try:
        table = parquet.read_table(path)
        kinds = kinds_of(table.column_names)
        columns = [table[name].to_pylist() for name in kinds.values()]
    except (arrow.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        raise _Damage(f"cut off or not parquet ({shown(str(error), 80)})") from error
    _checked_kinds(table.column_names)
    for cells in zip(*columns, strict=True):
        yield _Record(dict(zip(kinds, cells, strict=True)))


# ------------------------------------------------------------------ what cells say


def _rows(records: Sequence[_Record], name: str) -> Table:
    """The rows of records, and what is odd."""
    rows, long, notes = list[Row](), list[str](), list[str]()
    columns = {kind for record in records for kind in record.cells}
    by = "split"
    if "perhaps" in columns and "split" not in columns:
        by, told = split_column([record.cells.get("perhaps") for record in records])
        notes += [f"{name}: {own}" for own in told]
    if not records:
        return Table([], [f"{name} says nothing: it has no rows"])
    if not columns & {"text", "label", by}:
        return Table([], [*notes, f"{name} says nothing: it has no column text, split or label"])
    for number, record in enumerate(records, 1):
        file = _file_of(record.cells.get("file"))
        if record.is_long and by in columns:
            raise _Damage(f"row {number} has more cells than the first line; put texts with commas in quotes")
        if record.is_long:
            long.append(f"row {number}, {shown(file)}")
            continue
        split = split_of_value(record.cells.get(by), f"{name}: row {number}, {shown(file)}")
        captions, label = captions_in(record.cells.get("text")), captions_in(record.cells.get("label"))
        rows.append(Row(number, file, captions, split, label[0][1] if label else ""))
    if long:
        what = (
            "1 row with more cells than the first line is"
            if len(long) == 1
            else f"{len(long)} rows with more cells are"
        )
        notes.append(f"{name}: {what} left out, the first: {long[0]}; put texts with commas in quotes")
    return Table(rows, notes)


def split_column(values: Sequence[Any]) -> tuple[str, list[str]]:
    """Which kind of column says the split where only one that perhaps does is there, and what is to be said of it."""
    words = {str(value or "").strip().lower() for value in values}
    if words <= {"", *VALUES}:
        return "perhaps", []
    what = "a column subset, partition, set, fold, phase, usage or is_test"
    return "split", [f"{what} is not taken for a split; call it split if it is one"]


def _file_of(cell: Any) -> str:
    if isinstance(cell, Mapping):  # an image of a data set: {"path": ..., "bytes": ...}
        cell = next((cell[key] for key in ("path", "file_name") if cell.get(key)), None)
    if isinstance(cell, bytes):  # text of some programs' parquet files
        cell = cell.decode(errors="surrogateescape")
    return "" if cell is None or isinstance(cell, list) else str(cell).strip()


def captions_in(cell: Any, language: str = LANGUAGE, nested: int = NESTED) -> list[tuple[str, str]]:
    """The captions in a cell with their languages: a text, a list of them, or a record by language or with a text.

    None, NaN, and the words that programs write for them ("None", "null", "nan") are no captions.
    """
    if cell is None or cell != cell or isinstance(cell, bool) or not nested:
        return []
    if isinstance(cell, bytes):  # text of some programs' parquet files
        cell = cell.decode(errors="replace")
    if isinstance(cell, Mapping):
        kinds = {**kinds_of(list(cell)), **({"text": "raw"} if "raw" in cell else {})}
        if "text" in kinds:
            return captions_in(cell[kinds["text"]], language, nested - 1)
        if all(re.fullmatch(r"[a-z]{2,3}(-\w{2,4})?", str(key)) for key in cell):
            return [pair for key, own in cell.items() for pair in captions_in(own, str(key), nested - 1)]
        return []
    if isinstance(cell, Sequence) and not isinstance(cell, str):
        return [pair for own in cell for pair in captions_in(own, language, nested - 1)]
    text = str(cell).strip()
    if text.casefold() in NOTHING:
        return []
    if text.startswith(("['", '["')) and text.endswith("]") and (listed := _list_in(text)):
        return captions_in(listed, language, nested - 1)
    return [(language, text.encode(errors="replace").decode())]


def _list_in(text: str) -> list[str]:
    """The texts of a list that a program printed; nothing where it is none."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return []
    return value if isinstance(value, list) and all(isinstance(own, str) for own in value) else []


def numbered(captions: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Captions by language, each once; the second of a language is "en-2"."""
    found: dict[str, str] = {}
    counts: dict[str, int] = {}
    for language, text in dict.fromkeys(captions):
        counts[language] = number = counts.get(language, 0) + 1
        found[language if number == 1 else f"{language}-{number}"] = text
    return found

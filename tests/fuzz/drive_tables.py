"""Mutated tables of captions and splits: a caption stays with its image, or there is a clear error."""

import json

from smalti.data.sources import open_data

from .harness import Fault, changed_bytes

SHORT = 300
NAMES = ["a.png", "b.png", "train/c.png", "test/d.png", "Café.png"]
TEXTS = ["a red, round disc", 'the "best" one', "two\nlines", "grün", "None of them"]


def prepare(folder):
    """A folder of images, and good tables of all kinds."""
    import csv
    import io

    import pyarrow as arrow
    import pyarrow.parquet as parquet

    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    rows = [{"file_name": name, "text": text, "split": ""} for name, text in zip(NAMES, TEXTS, strict=True)]
    tables = []
    for delimiter in ",;\t":
        file = io.StringIO()
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        tables += [("csv", file.getvalue().encode(code)) for code in ("utf-8", "utf-8-sig", "utf-16")]
    tables += [("jsonl", "\n".join(map(json.dumps, rows)).encode()), ("json", json.dumps(rows).encode())]
    tables.append(("json", json.dumps({row["file_name"]: row for row in rows}).encode()))
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "table")
    tables.append(("parquet", (folder / "table").read_bytes()))
    (folder / "table").unlink()
    for suffix, data in tables:  # all say the same
        if (found := captions(folder, suffix, data)) != dict(zip(NAMES, TEXTS, strict=True)):
            raise AssertionError(f"{suffix}: {found}")
    return folder, tables


def captions(folder, suffix, data):
    """The captions by name where a table holds these bytes."""
    path = folder / f"metadata.{suffix}"
    path.write_bytes(data)
    try:
        source = open_data(folder)
        for name, split, why in zip(source.names, source.splits, source.reasons, strict=True):
            if split == "train" and "test" in name and "column" not in why:
                raise Fault("a test image is trained on")
        return {name: row.get("en") for name, row in zip(source.names, source.captions or [{}] * 5, strict=True)}
    finally:
        path.unlink()


def attempt(state, rng):
    """One mutant; a text that is another image's is a fault where its bytes were left as they are."""
    folder, tables = state
    suffix, data = tables[rng.integers(len(tables))]
    found = captions(folder, suffix, changed_bytes(data, rng, front=len(data)))
    if any(text is not None and (not text or text in ("None", "null", "nan")) for text in found.values()):
        raise Fault("a caption that is none")
    return "the same captions" if found == dict(zip(NAMES, TEXTS, strict=True)) else "other captions"

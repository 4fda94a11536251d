"""A whole data set as shards of codes: who does what, what has been done, and the manifest at the end.

Nothing is kept but files: settings are written before the first shard, a record after each, the manifest after all. So
a job may be killed at any moment and called again, and many jobs may do their parts of one folder at once.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from smalti.configs import decisive, differences, from_dict, to_dict
from smalti.data.code_shards import BAD, MANIFEST, SHARDS, CodesOf, Manifest, Shard, has_codes, read_manifest
from smalti.data.streams import Stream
from smalti.errors import SmaltiError, cut
from smalti.files import PARTIAL, atomic_path, read_json, write_json
from smalti.scale.worker import WORK, Done, Unit, Work, record_of, shard_name

SETTINGS = "settings.json"
Engine = Callable[[Work, list[Unit], int], Iterator[Done]]  # does units by so many workers, in any order


def tokenize(work: Work, stream: Stream, engine: Engine, workers: int, *, share: tuple[int, int] = (0, 1),
             progress: bool = True) -> dict[str, Any]:  # fmt: skip
    """Turn the images of a stream into shards of codes; whoever finishes the last shard writes the manifest.

    Args:
        work: what is to be done, and where.
        stream: what `work.data` names.
        engine: that runs the workers.
        workers: how many.
        share: (i, n): do the i-th of n shares, 0 <= i < n.
        progress: show a bar on stderr.

    Returns:
        Counts of the whole folder, and whether it is "complete".

    Raises:
        SmaltiError: the folder holds something else; or a part of the data cannot be read, after all others were.
    """
    out = Path(work.out)
    if has_codes(out):
        _check_same(out, read_manifest(out).codes_of, work.codes_of)
        return _finished(out)
    work = replace(work, codes_of=_settled(out, work.codes_of))
    if share == (0, 1) and all(part.num_images == 0 for part in stream.parts):
        raise SmaltiError(f"{stream.name}: no images in it; give other data")
    units = [unit for number, unit in enumerate(_units(stream, out, work.codes_of)) if number % share[1] == share[0]]
    left = [unit for unit in units if not record_of(out, unit.part, unit.shard)]
    if len(left) < len(units):
        _say(f"{out}: {len(units) - len(left)} of {len(units)} are done; it goes on")
    errors = _run(work, stream, left, engine, workers, progress) if left else []
    if errors and has_codes(out):  # another job has done the same, and tidied up meanwhile
        return _finished(out)
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise SmaltiError(f"{len(errors)} of {len(left)} parts of the job failed: {errors[0]}{more}")
    return _finish(out, work.codes_of, stream)


def _run(work: Work, stream: Stream, units: list[Unit], engine: Engine, workers: int, progress: bool) -> list[str]:
    """Do units; returns the errors of those that could not be done."""
    rows = work.codes_of.rows_per_shard
    counted = [_images_in(stream, unit, rows) for unit in units]
    known = None if any(count is None for count in counted) else sum(count or 0 for count in counted)
    errors, bad, images, started = [], 0, 0, time.perf_counter()
    what = f"tokenizing, {len(units)} units"
    with tqdm(total=known, desc=what, unit="image", disable=not progress, file=sys.stderr, leave=False) as bar:
        for number, done in enumerate(engine(work, units, min(workers, len(units))), 1):
            errors += [done.error] if done.error else []
            bad, images = bad + done.bad, images + done.images + done.bad
            bar.update(done.images + done.bad)
            told = {"done": f"{number}/{len(units)}"} | ({"bad": bad} if bad else {})
            if known is None:  # the time that is left follows from the parts
                left = (time.perf_counter() - started) / number * (len(units) - number)
                told["left"] = f"{left / 60:.1f} min"
            bar.set_postfix(told)
    return errors


def _images_in(stream: Stream, unit: Unit, rows: int) -> int | None:
    count = stream.parts[unit.part].num_images
    return None if count is None else min(rows, count - unit.shard * rows)


def _units(stream: Stream, out: Path, codes_of: CodesOf) -> Iterator[Unit]:
    """All units of a job, done or not; a part of which only reading tells how many images it has is one."""
    for part, own in enumerate(stream.parts):
        if own.num_images is not None:
            for shard in range(-(-own.num_images // codes_of.rows_per_shard)):
                yield Unit(part, shard, only=True)
        else:
            yield Unit(part, _first_missing(out, part), only=False)


def _first_missing(out: Path, part: int) -> int:
    """The first shard of a part that is not done; the last one where all are."""
    number = 0
    while (record := record_of(out, part, number)) and not record["last"]:
        number += 1
    return number


def _settled(out: Path, codes_of: CodesOf) -> CodesOf:
    """Write what decides the shards into a new folder, or hold it against what is there; returns that.

    Raises:
        SmaltiError: the folder holds something else, or shards of other settings.
    """
    path = out / WORK / SETTINGS
    try:
        if out.is_dir() and not (out / WORK).is_dir() and any(out.iterdir()):
            raise SmaltiError(f"{out} holds files that are no shards of codes; choose another --out")
        for folder in (out / WORK, out / SHARDS):
            folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=out / WORK, prefix=PARTIAL) as own:
                write_json(Path(own) / SETTINGS, to_dict(codes_of))
                with contextlib.suppress(FileExistsError):  # of several jobs that begin at once one writes it
                    os.link(Path(own) / SETTINGS, path)
    except OSError as error:
        raise SmaltiError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from error
    old = from_dict(CodesOf, read_json(path), str(path))
    _check_same(out, old, codes_of)
    return old


def _check_same(out: Path, old: CodesOf, new: CodesOf) -> None:
    if changed := differences(decisive(old), decisive(new)):
        what = cut(changed[0], 160) + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
        raise SmaltiError(f"{out} holds codes of other settings: {what}; choose another --out, or repeat its command")


def _finish(out: Path, codes_of: CodesOf, stream: Stream) -> dict[str, Any]:
    """Write the manifest where all shards are there."""
    found = list(_records(out, stream, codes_of))
    missing = sum(record is None for _, record in found)
    if has_codes(out):  # another job was quicker
        return _finished(out)
    if missing:
        done = [record for _, record in found if record]
        images = sum(record["rows"] for record in done)
        _say(f"{out}: {len(done)} shards are done, {missing} or more are left to other jobs; the last one ends it")
        return {"complete": False, "num_images": images, "num_shards": len(done), "num_missing": missing}
    records = [(name, record) for name, record in found if record]
    splits: Counter[str] = Counter()
    for _, record in records:
        splits.update(record["splits"])
    bad = [{"key": key, "shard": name, "why": why} for name, record in records for key, why in record["bad"]]
    manifest = Manifest(
        codes_of=codes_of,
        columns={own.name: str(own.type) for own in codes_of.schema},
        num_images=sum(record["rows"] for _, record in records),
        num_bad_images=len(bad),
        splits={split or "none": splits[split] for split in sorted(splits)},
        shards=tuple(
            Shard(name=name, rows=record["rows"], bytes=record["bytes"], sha256=record["sha256"])
            for name, record in records
        ),
    )
    if not manifest.num_images:
        first = f"; the first: {bad[0]['why']}" if bad else ""
        raise SmaltiError(f"{stream.name}: none of its {len(bad)} images can be read{first}")
    with atomic_path(out / BAD) as temporary:
        lines = (json.dumps(row, ensure_ascii=False) for row in bad)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_json(out / MANIFEST, to_dict(manifest))
    shutil.rmtree(out / WORK, ignore_errors=True)
    return {**_summary(manifest), "written": str(out / MANIFEST)}


def _records(out: Path, stream: Stream, codes_of: CodesOf) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """All shards in order with their records; of a part whose end is unknown the first one that is missing is one."""
    for part, own in enumerate(stream.parts):
        number, known = 0, own.num_images
        while known is None or number * codes_of.rows_per_shard < known:
            record = record_of(out, part, number)
            yield shard_name(part, number), record
            if known is None and (record is None or record["last"]):
                break
            number += 1


def _finished(out: Path) -> dict[str, Any]:
    _say(f"{out} is complete: nothing is left to do")
    shutil.rmtree(out / WORK, ignore_errors=True)
    return _summary(read_manifest(out))


def _summary(manifest: Manifest) -> dict[str, Any]:
    counts = {"num_images": manifest.num_images, "bad_images": manifest.num_bad_images, **manifest.splits}
    size = sum(shard.bytes for shard in manifest.shards)
    return {"complete": True, **counts, "num_shards": len(manifest.shards), "bytes": size}


def _say(text: str) -> None:
    print(text, file=sys.stderr)

"""The verb `tokenize`."""

from functools import partial
from typing import Any, Literal

from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.ops.precision import Precision

ROWS_PER_SHARD = 10_000


def tokenize(
    run: str,
    *,
    data: str,
    out: str,
    split: Split = "all",
    shard: str = "0/1",
    rows_per_shard: int = ROWS_PER_SHARD,
    batch_size: int = 64,
    image_size: str | None = None,
    engine: Literal["local", "daft", "ray"] = "local",
    workers: int | None = None,
    threads: int = 1,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Turn a data set of any size into shards of codes, by many processes or machines; re-running goes on.

    Args:
        run: the folder of a trained model with a codebook, or owner/name on the hub.
        data: emoji, a folder of images or of idx files, *.parquet, *.tar shards as images-{000..099}.tar, hf:NAME of
            the hub, or an address as s3://BUCKET/images-{000..099}.tar.
        out: the folder of the shards: codes/*.parquet, bad.jsonl and, when all are there, manifest.json.
        split: of the data: train, validation, test or all; shards say of each image in which it is.
        shard: i/n, the i-th of n shares of the work, from 0 on, for arrays of jobs; the last to finish writes the
            manifest.
        rows_per_shard: images of a file of codes.
        batch_size: images at a time; changes no code.
        image_size: of the images, instead of that of the training, as 256 or 16x32.
        engine: local, processes on this machine; or daft or ray, which run on clusters too.
        workers: processes, each with the model; by default one for each core that may be used, or for each GPU.
        threads: of a worker's arithmetic.
        device: cpu, or cuda: a GPU for each worker.
        precision: of the encoder, fp32, bf16 or auto.
    """
    from dataclasses import replace

    import smalti
    from smalti.apps.code import loaded, run_code
    from smalti.data.code_shards import CodesOf
    from smalti.data.sources import open_stream
    from smalti.generate.tokenizer import TrainedTokenizer
    from smalti.models.autoencoder import Autoencoder
    from smalti.ops.precision import resolved
    from smalti.pretrained import find_folder
    from smalti.scale.engines import ENGINES
    from smalti.scale.job import tokenize as run_job
    from smalti.scale.worker import Work

    _check_counts(rows_per_shard=rows_per_shard, batch_size=batch_size, workers=workers, threads=threads)
    share, folder = share_of(shard), str(find_folder(run))
    tokenizer = TrainedTokenizer(Autoencoder.from_pretrained(folder))
    preprocessing = tokenizer.preprocessing
    if image_size is not None:
        preprocessing = replace(preprocessing, image_size=image_size)
    tokenizer.model.check_fits(*preprocessing.size)
    height, width = tokenizer.model.networks.grid_of(*preprocessing.size)
    stream = open_stream(data, split)
    codes_of = CodesOf(
        data=data,
        split=split,
        fingerprint=stream.fingerprint,
        tokenizer=run,
        tokenizer_hash=tokenizer.source_hash,
        codebook_size=tokenizer.codebook_size,
        grid=(height, width * tokenizer.beside),
        codebooks=tokenizer.beside,
        preprocessing=preprocessing,
        precision=resolved(precision, device),
        rows_per_shard=rows_per_shard,
        label_kind=stream.label_kind,
        smalti=smalti.__version__,
    )
    work = Work(
        run=folder,
        data=data,
        out=out,
        codes_of=codes_of,
        batch_size=batch_size,
        device=device,
        threads=threads,
        before=tuple(partial(run_code, path) for path in loaded()),
    )
    return run_job(work, stream, ENGINES[engine], workers or _workers(device), share=share)


def share_of(text: str) -> tuple[int, int]:
    """(i, n) of "i/n".

    Raises:
        SmaltiError: another text, or an i that is not below n.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise SmaltiError(f"--shard is i/n with i from 0 to n - 1, as 0/8 for the first of 8 shares, not {text[:40]!r}")
    return int(number), int(count)


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise SmaltiError(f"--{name} must be at least 1, not {value}")


def _workers(device: str) -> int:
    """One for each core, or for each GPU."""
    import os

    import torch

    if device.startswith("cuda"):
        return max(1, torch.cuda.device_count()) if device == "cuda" else 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

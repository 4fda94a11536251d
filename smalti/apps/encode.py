"""The verb `encode`."""

from pathlib import Path
from typing import Any, Literal

from smalti.configs import effective
from smalti.data.splits import Split
from smalti.errors import SmaltiError
from smalti.ops.precision import Precision, arithmetic


def encode(
    run: str,
    images: list[str] | None = None,
    *,
    data: str = "",
    split: Split | None = None,
    write: Literal["codes", "latents"] | None = None,
    pool: Literal["none", "mean"] = "none",
    out: str = "codes.npz",
    force: bool = False,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Encode images of any size, or a data set with its labels, to codes or latents, in one file.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        images: files, or folders of images.
        data: instead of images: emoji, a folder of images or of idx files, or *.parquet, as the model is trained on it.
        split: of the data: train, validation, test or all.
        write: codes, or latents: what the decoder receives (float32; of a VAE the posterior's mean, of a discrete
            system the vectors of its codes); by default codes where the model has them.
        pool: mean averages latents over the grid, to one vector an image, which cannot be decoded; none keeps the grid.
        out: the file: *.npz or *.parquet; for other programs *.npy, one array with a *.json beside it, or of codes
            *.jsonl, a line an image.
        force: overwrite the file.
        device: cpu, cuda, ...
        precision: of the networks: fp32, whose codes are the same on every machine but for near ties; bf16, with some
            other codes; or auto, which is bf16 where the device is fast at it.
    """
    from smalti.apps.encodedfile import new_files_of, write_encoded
    from smalti.apps.encodedrecord import EncodedFile
    from smalti.apps.imagefiles import DataImages, ImageFiles
    from smalti.apps.outfiles import Names
    from smalti.data.sources import open_data
    from smalti.images.folders import storable
    from smalti.models.autoencoder import Autoencoder, Encoded, EncodedLatents
    from smalti.models.bottlenecks import DiscreteBottleneck

    new_files_of(out, force)
    if bool(images) == bool(data):
        raise SmaltiError(f"encode takes IMAGES or --data, {'not both' if images else 'and was given neither'}")
    part = effective(bool(data), "without --data", split=(split, "all"))
    model = Autoencoder.from_pretrained(run, device=device)
    kind = write or ("codes" if isinstance(model.bottleneck, DiscreteBottleneck) else "latents")
    if kind == "codes" and pool != "none":
        raise SmaltiError(f"--pool {pool} averages latents, not codes; add --write latents")
    if kind == "latents" and out.endswith(".jsonl"):
        raise SmaltiError("a .jsonl holds codes: latents are long as text; name --out .npy, .npz or .parquet")
    codebook_size = model.codes_bottleneck.codebook_size if kind == "codes" else 0
    encode_many = model.encode_many if kind == "codes" else model.encode_latents_many
    if data:
        images_in = DataImages(open_data(data, **part), model.config.preprocessing)
    else:
        images_in = ImageFiles(images or [], model.config.preprocessing.reading)
    names, taken = [], Names()
    encoded: list[Encoded | EncodedLatents] = []
    for own, batch in images_in.chunks("encoding"):
        for name in own:  # of a data set they differ
            names.append(storable(name) if isinstance(name, str) else taken.new(storable(name.name)))
        with arithmetic(precision, device):
            encoded += encode_many(batch)
    file = EncodedFile(
        kind=kind,
        names=names,
        values=[own.mean((1, 2)) if pool == "mean" else own for own, _ in encoded],
        sizes=[size for _, size in encoded],
        model_hash=model.source_hash,
        codebook_size=codebook_size,
        pool=pool,
        labels=images_in.labels if isinstance(images_in, DataImages) else {},
    )
    write_encoded(Path(out), file)
    return {"written": out, **file.describe(), "bad_images": images_in.bad}

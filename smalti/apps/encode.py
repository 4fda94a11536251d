"""The verb `encode`."""

from pathlib import Path
from typing import Any

from smalti.errors import SmaltiError


def encode(run: str, images: list[str], *, out: str = "codes.npz", device: str = "cpu") -> dict[str, Any]:
    """Encode images of any size to codes, in one npz file.

    Args:
        run: the folder of a trained model with a codebook, or owner/name on the hub.
        images: files, or folders of images.
        out: the npz file.
        device: cpu, cuda, ...
    """
    from smalti.apps.codefile import write_codes
    from smalti.apps.imagefiles import ImageFiles, unused
    from smalti.models.autoencoder import Autoencoder

    if not out.endswith(".npz"):
        raise SmaltiError(f"--out must end in .npz, not {out!r}")
    model = Autoencoder.from_pretrained(run, device=device)
    bottleneck = model.codes_bottleneck
    images_in = ImageFiles(images, model.config.preprocessing.channels)
    names: list[str] = []
    encoded = []
    for files, batch in images_in.chunks("encoding"):
        for file in files:
            names.append(str(unused(Path(file.name), names)))
        encoded += model.encode_many(batch)
    write_codes(Path(out), names, encoded, model.source_hash, bottleneck.codebook_size)
    num_codes = sum(item.codes.numel() for item in encoded)
    return {
        "written": out,
        "num_images": len(names),
        "num_codes": num_codes,
        "codebook_size": bottleneck.codebook_size,
        "grids": {name: list(item.codes.shape) for name, item in zip(names, encoded, strict=True)},
        "bad_images": images_in.bad,
    }

"""The verb `reconstruct`."""

from pathlib import Path
from typing import Any

from smalti.files import atomic_path


def reconstruct(run: str, images: list[str], *, out: str, device: str = "cpu") -> dict[str, Any]:
    """Write before | after pictures of images of any size.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        images: files, or folders of images.
        out: the folder for the pictures.
        device: cpu, cuda, ...
    """
    from smalti.apps.imagefiles import ImageFiles, unused
    from smalti.evaluation.metrics import mse, psnr_db
    from smalti.images.contact_sheets import side_by_side
    from smalti.images.reading import to_pil
    from smalti.models.autoencoder import Autoencoder

    model = Autoencoder.from_pretrained(run, device=device)
    images_in = ImageFiles(images, model.config.preprocessing.channels)
    written: list[str] = []
    quality: list[float] = []
    for files, batch in images_in.chunks("reconstructing"):
        for file, before, after in zip(files, batch, model.reconstruct_many(batch), strict=True):
            target = unused(Path(out) / f"{file.stem}.png", written)
            with atomic_path(target) as temporary:
                side_by_side(to_pil(before)[0], to_pil(after)[0]).save(temporary)
            written.append(str(target))
            quality.append(psnr_db(mse(before[None], after[None].cpu()).clamp(min=1e-10)).item())
    return {"written": written, "bad_images": images_in.bad, "mean_psnr_db": sum(quality) / len(quality)}

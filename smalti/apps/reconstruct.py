"""The verb `reconstruct`."""

from typing import Any

from smalti.configs import effective
from smalti.files import atomic_path
from smalti.images.preprocessing import Noise, asked_noise
from smalti.ops.precision import Precision, arithmetic


def reconstruct(
    run: str,
    images: list[str],
    *,
    out: str,
    noise: Noise = "none",
    noise_level: float | None = None,
    noise_patch: int | None = None,
    seed: int | None = None,
    force: bool = False,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Write before | after pictures of images of any size; with noise, noisy | restored | clean.

    Of other channels than grey and colour, the first bands are shown, and NAME.npy has what is restored.

    Args:
        run: the folder of a trained model, or owner/name on the hub.
        images: files, or folders of images.
        out: the folder for the pictures.
        noise: put on the images before the model sees them: gaussian, salt_and_pepper or masking.
        noise_level: deviation of gaussian noise on values in [0, 1], the share of pixels of the others; by default as
            the model was trained on this noise, or 0.1, of masking 0.25.
        noise_patch: of masking, the side of the masked squares, in pixels; by default as the model was trained, or 1.
        seed: of the noise; 0 by default.
        force: overwrite pictures.
        device: cpu, cuda, ...
        precision: of the networks: fp32, bf16, or auto, which is bf16 where the device is fast at it.
    """
    from smalti.apps.imagefiles import ARRAY, ImageFiles, suffix_for, write_image
    from smalti.apps.outfiles import new_files
    from smalti.images.contact_sheets import side_by_side
    from smalti.images.fidelity import mse, psnr_db
    from smalti.images.noise import corrupt_each
    from smalti.images.reading import to_pil
    from smalti.models.autoencoder import Autoencoder

    chosen = effective(noise != "none", "without noise", seed=(seed, 0))
    model = Autoencoder.from_pretrained(run, device=device)
    corruption = asked_noise(model.config.corruption, noise, noise_level, noise_patch)
    preprocessing = model.config.preprocessing
    images_in = ImageFiles(images, preprocessing.reading)
    paths = dict.fromkeys(path for path, _ in images_in.files)  # one named twice is written once
    targets = dict(zip(paths, new_files(out, (path.name for path in paths), ".png", force), strict=True))
    written: list[str] = []
    rows: list[dict[str, Any]] = []
    for files, clean in images_in.chunks("reconstructing"):
        seen = corrupt_each(clean, corruption, chosen.get("seed", 0), first=len(rows))
        with arithmetic(precision, device):
            made = model.reconstruct_many(seen)
        for file, *stages in zip(files, seen, made, clean, strict=True):
            stages = [stage.cpu() for stage in stages]
            with atomic_path(targets[file]) as temporary:
                side_by_side(*(to_pil(stage)[0] for stage in stages[: 3 if chosen else 2])).save(temporary)
            written.append(str(targets[file]))
            if suffix_for(preprocessing) == ARRAY:
                write_image(stages[1], targets[file].with_suffix(ARRAY), preprocessing)
                written.append(str(targets[file].with_suffix(ARRAY)))
            before, after = (psnr_db(mse(stage[None], stages[2][None]).clamp(min=1e-10)).item() for stage in stages[:2])
            rows.append({"image": str(file), **({"noisy_psnr_db": before} if chosen else {}), "psnr_db": after})
    means = {f"mean_{name}": sum(row[name] for row in rows) / len(rows) for name in rows[0] if name != "image"}
    about = {"noise": str(corruption), "trained_noise": str(model.config.corruption)} if chosen else {}
    return {"written": written, "bad_images": images_in.bad, **about, **means, "images": rows}

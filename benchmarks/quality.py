"""Decibels for seconds: our recipes and the peers, trained for the same CPU seconds of one thread and measured alike.

    make bench-quality DATA=DIR     # DIR has photos-*.parquet and cifar10-*.parquet; about 25 minutes of one core

Every side sees the same images, flipped left to right half of the time, and its learning rate ends at the budget, by
half a cosine: that of a peer is a function of the CPU time used, ours has so many steps as the time of a step allows,
which is measured first. The time of `smalti train` counts whole, with what it writes; the images are in memory before.
Figures are of the test split, in fp32: PSNR is the mean over images of that of the 8-bit rounded reconstruction.

The peers' settings are those of results/quality_tuning.json that did best on the validation split. More are tried, each
beginning with the best so far, by

    python benchmarks/quality.py --data DIR --tune PEER --seconds 30                              # those of `TRIALS`
    python benchmarks/quality.py --data DIR --tune PEER --with '{"width": 64}' '{"bf16": true}'   # others
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common import cpu_times, machine, save
from quality_peers import PEERS, TRIALS, Settings
from torch import Tensor, nn

from smalti.apps.process import keep_freed_memory
from smalti.data.batches import Batches, Pixels
from smalti.data.sources import open_data
from smalti.evaluation.artefacts import border_ratio, period2_energy
from smalti.files import read_json
from smalti.images.contact_sheets import labelled
from smalti.images.fidelity import mse, psnr_db
from smalti.images.pixels import to_float, to_uint8
from smalti.images.preprocessing import Preprocessing
from smalti.models.autoencoder import Autoencoder
from smalti.ops.counts import code_counts, perplexity, usage
from smalti.recipes import dvae, vqvae
from smalti.training import loop, tasks
from smalti.training.experiment import Experiment
from smalti.training.hooks import Step

RESULTS = Path(__file__).parent / "results"
TUNING = RESULTS / "quality_tuning.json"
K, BATCH, SHOWN = 512, 32, 6
WARMUP = 0.02  # of a peer's budget
TOLERANCE = 0.03  # of a budget: a longer training of ours is done again
Reconstruct = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Workload:
    """Images of one size, and the CPU seconds that every side has for them."""

    name: str
    files: str
    size: int
    stride: int
    seconds: float
    batch: int  # of a peer, before others are tried
    sides: tuple[str, ...] = ()

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(image_size=self.size)

    @property
    def first_settings(self) -> Settings:
        """Of every peer: what works for ours, the coarse half of the downsampling by folding pixels."""
        return Settings(fold=self.stride // 2, batch=self.batch)


SIDES = ("smalti vqvae", "smalti vqvae, its own K", "smalti dvae", *PEERS)
WORKLOADS = {
    "photographs": Workload("photographs at 128 px, 16x16 codes", "photos-*.parquet", 128, 8, 90, 8, SIDES),
    "cifar10": Workload(
        "CIFAR-10, 8x8 codes", "cifar10-*.parquet", 32, 4, 132, 32, tuple(side for side in SIDES if "own" not in side)
    ),
}
OURS: dict[str, tuple[Callable[..., Experiment], dict[str, Any]]] = {  # with what is not the recipe's default
    "smalti vqvae": (vqvae, {"codebook_size": K}),
    "smalti vqvae, its own K": (vqvae, {}),
    "smalti dvae": (dvae, {"codebook_size": K}),
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A side after its training."""

    reconstruct: Reconstruct
    facts: dict[str, Any]  # of the training, for the results


# ------------------------------------------------------------------ training


class Enough(Exception):
    """A step was timed for long enough."""


@contextmanager
def images_at_hand(pixels: Pixels) -> Iterator[None]:
    """Trainings take these images instead of opening their own."""
    with patch.object(tasks, "open_pixels", lambda *_, **__: pixels):
        yield


def steps_for(experiment: Experiment, seconds: float) -> int:
    """How many steps of a training take so many CPU seconds, with its start, by the first of them."""
    start, clocks = time.process_time(), []

    def watch(step: Step) -> None:
        clocks.append(time.process_time())
        if len(clocks) >= 12 and clocks[-1] - clocks[2] > 0.05 * seconds:
            raise Enough

    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        loop.train(experiment, Path(folder) / "run", on_step=watch, progress=False)
    of_a_step = (clocks[-1] - clocks[2]) / (len(clocks) - 3)
    return max(1, round((seconds - (clocks[2] - start)) / of_a_step) + 3)


def train_ours(name: str, workload: Workload, data: str, pixels: Pixels, seconds: float) -> Trained:
    """Train one of our recipes with its defaults for the size of the images; once more where it took too long.

    The schedule is that of `smalti train --minutes`, with the steps found by CPU seconds rather than by the clock.
    """
    recipe, options = OURS[name]
    experiment = recipe(data=data, image_size=workload.size, stride=workload.stride, augment="flip", **options)
    often = {"sample_every": 0, "validate_every": 0, "checkpoint_every": 10**9}
    experiment = experiment.with_settings(steps=10**6, **often)
    with images_at_hand(pixels), tempfile.TemporaryDirectory() as folder:
        steps = steps_for(experiment, seconds)
        for attempt in range(2):
            run = Path(folder) / str(attempt)
            start = time.process_time()
            loop.train(experiment.lasting(steps), run, progress=False)
            used = time.process_time() - start
            if used <= (1 + TOLERANCE) * seconds:
                break
            print(f"{name}: {steps} steps took {used:.1f} s of {seconds:g}; once more", flush=True)
            steps = round(steps * seconds / used)
        model = Autoencoder.from_pretrained(run).eval()
        precision = read_json(run / "environment.json")["precision"]
    batch = experiment.run.batch_size * experiment.optimizer.accumulate
    facts = about(model, model.codes_bottleneck.codebook_size, steps, batch, used)
    return Trained(
        reconstruct=lambda images: (model.reconstruct(images), model.encode(images)),
        facts={**facts, "precision": precision},
    )


def train_peer(
    name: str, settings: Settings, workload: Workload, pixels: Pixels, seconds: float, seed: int = 0
) -> Trained:
    """Train a peer with AdamW and half a cosine, for so many CPU seconds."""
    torch.manual_seed(seed)
    peer = PEERS[name](settings, workload.size, workload.stride, K).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(peer.parameters(), settings.rate, fused=True)
    batches = Batches(pixels, settings.batch, seed=seed, augment="flip").iterate()
    steps, start = 0, time.process_time()
    while (progress := (time.process_time() - start) / seconds) < 1:
        rate = settings.rate * min(1.0, progress / WARMUP) * (1 + math.cos(math.pi * progress)) / 2
        optimizer.param_groups[0]["lr"] = rate
        peer.loss(to_float(next(batches)), progress).backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1
    used = time.process_time() - start
    peer.eval()
    facts = about(peer, peer.codebook_size, steps, settings.batch, used)
    facts |= {"precision": "bf16" if settings.bf16 else "fp32", "settings": asdict(settings)}
    return Trained(reconstruct=peer.reconstruct, facts=facts)


def about(model: nn.Module, codebook_size: int, steps: int, batch: int, seconds: float) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "codebook_size": codebook_size,
        "steps": steps,
        "batch": batch,
        "images_seen": steps * batch,
        "cpu_seconds": round(seconds, 1),
    }


# ------------------------------------------------------------------ measuring


@torch.no_grad()
def measured(reconstruct: Reconstruct, pixels: Tensor, stride: int, codebook_size: int) -> dict[str, Any]:
    """The figures of a side on images uint8 (N, H, W, C), and its first reconstructions."""
    decibels, counts = [], torch.zeros(codebook_size, dtype=torch.int64)
    ratios = {"border_ratio": torch.zeros(2), "period2_energy": torch.zeros(2)}
    for batch in pixels.split(BATCH):
        made, codes = reconstruct(to_float(batch))
        made = to_float(to_uint8(made))
        decibels.append(psnr_db(mse(to_float(batch), made)))
        counts += code_counts(codes.flatten(), codebook_size)
        for key, value in energies(made, stride).items():
            ratios[key] += value
    found = {"psnr_db": torch.cat(decibels).mean().item(), "usage": usage(counts), "perplexity": perplexity(counts)}
    found |= {key: (above / below).item() for key, (above, below) in ratios.items()}
    return {key: round(value, 4) for key, value in found.items()}


def energies(images: Tensor, stride: int) -> dict[str, Tensor]:
    """Numerators and denominators of the border ratio and of the energy of period 2, summed over images."""
    ratios = {"border_ratio": border_ratio(images, stride), "period2_energy": period2_energy(images)}
    return {key: torch.stack([part.sum() for part in ratio]) for key, ratio in ratios.items() if ratio}


def originals(pixels: Tensor, stride: int) -> dict[str, float]:
    """The two ratios of the images themselves."""
    found = energies(to_float(pixels), stride)
    return {key: round((above / below).item(), 4) for key, (above, below) in found.items()}


# ------------------------------------------------------------------ the peers' settings


def tried(path: Path = TUNING) -> list[dict]:
    """What `--tune` found so far."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def best_settings(key: str, peer: str) -> Settings:
    """Those with the highest PSNR on the validation split, of the longest trials.

    Where none was made with these images, those of others, with this workload's folding and batch.
    """
    workload, all_trials = WORKLOADS[key], [one for one in tried() if one["side"] == peer]
    own = [one for one in all_trials if one["workload"] == key]
    if not all_trials:
        return workload.first_settings
    settings = Settings(**max(own or all_trials, key=lambda one: (one["seconds"], one["psnr_db"]))["settings"])
    return settings if own else replace(settings, fold=workload.first_settings.fold, batch=workload.batch)


def known(trial: dict[str, Any]) -> tuple[str, str, float, Settings]:
    """What makes a trial another one."""
    return trial["workload"], trial["side"], trial["seconds"], Settings(**trial["settings"])


def tune(peer: str, key: str, trials: list[dict[str, Any]], data: str, seconds: float, images: int) -> None:
    """Try settings of a peer on the validation split, and write down what comes of each."""
    workload = WORKLOADS[key]
    train, held_out = (Pixels(open_data(data, split), workload.preprocessing) for split in ("train", "validation"))
    for given in trials:
        settings = replace(best_settings(key, peer), **given)
        if (key, peer, seconds, settings) in [known(one) for one in tried()]:
            continue
        trained = train_peer(peer, settings, workload, train, seconds)
        found = measured(trained.reconstruct, held_out.evenly(images), workload.stride, K)
        entry = {"workload": key, "side": peer, "split": "validation", "seconds": seconds, **found, **trained.facts}
        entry |= {name: value for name, value in machine().items() if name != "kernels"}
        print(json.dumps(entry), flush=True)
        lines = ",\n".join(json.dumps(one) for one in [*tried(), entry])
        TUNING.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


# ------------------------------------------------------------------ the benchmark


def compare_sides(
    key: str, data: str, sides: list[str], seconds: float, images: int, picture: Path, rotation: int
) -> dict[str, Any]:
    """Train and measure all sides one after the other."""
    workload = WORKLOADS[key]
    train, test = (Pixels(open_data(data, split), workload.preprocessing) for split in ("train", "test"))
    pixels = test.evenly(images)
    shown = to_float(pixels[:: max(1, len(pixels) // SHOWN)][:SHOWN])
    rows, found, (busy, own), wall = {"originals": shown}, {}, cpu_times(), time.perf_counter()
    for name in [*sides[rotation:], *sides[:rotation]]:
        if name in OURS:
            trained = train_ours(name, workload, data, train, seconds)
        else:
            trained = train_peer(name, best_settings(key, name), workload, train, seconds)
        figures = measured(trained.reconstruct, pixels, workload.stride, trained.facts["codebook_size"])
        found[name] = {"metrics": figures, **trained.facts}
        with torch.no_grad():
            rows[name] = trained.reconstruct(shown)[0].clamp(0, 1)
        print(f"{name:<26} {json.dumps(found[name])}", flush=True)
    (busy_after, own_after), wall = cpu_times(), time.perf_counter() - wall
    show([(name, rows[name]) for name in ["originals", *sides]], picture)
    return {
        "workload": workload.name,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "images": len(pixels),
        "training_images": len(train),
        "originals": originals(pixels, workload.stride),
        "sides": {name: found[name] for name in sides},
        "neighbour_load_cores": round(max(0.0, (busy_after - busy) - (own_after - own)) / wall, 2),
    }


def show(rows: list[tuple[str, Tensor]], path: Path) -> None:
    """The originals above the reconstructions of each side."""
    zoom = max(1, 128 // rows[0][1].shape[-1])
    labels = [(name.replace(", ", "\n").replace("-", "-\n"), images) for name, images in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    labelled([""], labels, zoom).save(path)
    print(f"wrote {path}")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the folder of the parquet files")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--only", nargs="+", choices=SIDES, default=[*SIDES], metavar="NAME")
    parser.add_argument("--seconds", type=float, help="of each training, instead of the workload's")
    parser.add_argument("--images", type=int, default=10**6, help="of the test split, at most")
    parser.add_argument("--tune", choices=PEERS, metavar="PEER", help="try settings of a peer on the validation split")
    parser.add_argument(
        "--with", dest="trials", type=json.loads, nargs="+", help="what differs from the best so far, each as JSON"
    )
    parser.add_argument("--out", type=Path, help="results/quality.json by default, for all sides at their full length")
    arguments = parser.parse_args(argv)
    keep_freed_memory()
    torch.set_num_threads(1)
    short = arguments.seconds or arguments.images < 10**6 or arguments.only != [*SIDES]
    out = arguments.out or (Path(tempfile.mkdtemp()) / "quality.json" if short else RESULTS / "quality.json")
    for rotation, key in enumerate(arguments.workloads):
        data, seconds = f"{arguments.data}/{WORKLOADS[key].files}", arguments.seconds or WORKLOADS[key].seconds
        if arguments.tune:
            trials = arguments.trials or TRIALS[arguments.tune]
            tune(arguments.tune, key, trials, data, seconds, arguments.images)
            continue
        picture = out.with_name(f"{out.stem}_{key}.png")
        sides = [side for side in WORKLOADS[key].sides if side in arguments.only]
        found = compare_sides(key, data, sides, seconds, arguments.images, picture, rotation % len(sides))
        save([found], out)


if __name__ == "__main__":
    main()

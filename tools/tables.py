"""Writes the tables of README.md, docs/ and experiments/ from the result files; keeps what a run measured.

    python tools/tables.py                              # write them
    python tools/tables.py --check                      # exit 1 where one is not up to date
    python tools/tables.py --keep runs/dvae emoji_dvae  # RUN/evaluation.json to experiments/results/emoji_dvae.json

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. Quality is in experiments/results/*.json, one
file a run; those of speed are made by speed_tables.py and scale_tables.py.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the smalti beside this file, not another that is installed

import scale_tables
import speed_tables

from smalti.evaluation.catalogue import METRICS, SETS, format_metric, heading
from smalti.reports.tables import Row, as_markdown, markdown_table, markdown_text

ROOT = Path(__file__).parent.parent
QUALITY = ROOT / "experiments" / "results"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", flags=re.DOTALL)
KINDS = ("fd_effnet", "kid_effnet")
Result = dict[str, Any]


# ------------------------------------------------------------------ quality


def run(name: str) -> Result:
    return json.loads((QUALITY / f"{name}.json").read_text(encoding="utf-8"))


def measured(results: Sequence[Result]) -> list[str]:
    """Where results come from, each machine and commit once."""
    places = dict.fromkeys(
        f"{result['processor']}, torch {result['torch']}, commit {result['commit']}, {result['date']}"
        for result in results
    )
    return ["", f"Measured on {'; '.join(places)}."]


def compared_runs(what: str, names: dict[str, str], metrics: Sequence[str], *about: str) -> list[str]:
    """The table of `smalti report`, of result files by the names of their rows."""
    results = {shown: run(name) for shown, name in names.items()}
    rows = [Row(shown, result, {key: result.get(key) for key in about}) for shown, result in results.items()]
    *table, last = as_markdown(rows, metrics, what).splitlines()
    return [*table, f"{last} {measured(list(results.values()))[-1]}"]


def reconstruction() -> list[str]:
    names = {"AE": "emoji_ae", "VAE": "emoji_vae", "VQ-VAE": "emoji_vqvae", "dVAE": "emoji_dvae"}
    metrics = (
        "psnr_db",
        "ssim",
        "effnet_lpips",
        "usage",
        "perplexity",
        "rate_nats",
        "bits_per_dim",
        "bf16_equal_codes",
    )
    return compared_runs("system", names, metrics)


def generation() -> list[str]:
    names = {
        "transformer": "emoji_transformer",
        "MaskGIT": "emoji_maskgit",
        "PixelSNAIL": "emoji_pixelsnail",
        "PixelCNN": "emoji_pixelcnn",
    }
    table = compared_runs("prior", names, ("bits_per_code", "share_of_histogram"), "note", "time")
    return [*table, "", *(f"- {prior}: `{run(name)['commands'][0]}`" for prior, name in names.items())]


def photographs() -> list[str]:
    return _of_photographs("recipe", {recipe: f"photo_{recipe}" for recipe in ("vqvae", "vqgan", "dvae")})


def photographs_hour() -> list[str]:
    return _of_photographs("vqvae", {"3 minutes": "photo_vqvae", "60 minutes": "photo_vqvae_60"})


def _of_photographs(kind: str, names: dict[str, str]) -> list[str]:
    metrics = ("psnr_db", "ssim", "effnet_lpips", "fd_effnet", "kid_effnet", "border_ratio", "period2_energy",
               "ring_error", "sharpness", "usage")  # fmt: skip
    return compared_runs(kind, names, metrics)


def flowers() -> list[str]:
    names = {"transformer": "flowers_transformer", "MaskGIT": "flowers_maskgit"}
    metrics = (
        "bits_per_code",
        "share_of_histogram",
        *(f"{kind}_fd_effnet" for kind in ("sample", "reconstruction", "real")),
    )
    return compared_runs("prior", names, metrics, "note", "time")


def probes() -> list[str]:
    """Accuracies on the representations of several systems; pixels and PCA are the same for all of them."""
    systems = {"AE": "ae", "VAE": "vae", "VQ-VAE": "vqvae", "dVAE": "dvae"}
    results = {system: run(f"mnist_probe_{name}") for system, name in systems.items()}
    common = {row["representation"]: row for row in run("mnist_probe_ae")["probes"]["rows"]}
    found = {shown: common[name] for shown, name in (("pixels", "pixels"), ("PCA", "pca"))}
    for system, result in results.items():
        for row in result["probes"]["rows"]:
            if row["representation"] not in ("pixels", "pca"):
                found[f"{system}, {row['representation']}"] = row
    rows = [
        [
            shown,
            f"{row['dims']}",
            *(f"{row[f'{way}_accuracy']:.1%} ± {row[f'{way}_standard_error']:.1%}" for way in ("linear", "knn")),
        ]
        for shown, row in found.items()
    ]
    header = ["representation", "dimensions", "linear probe", "5 nearest neighbours"]
    return [*markdown_table(header, rows), *measured(list(results.values()))]


def samples() -> list[str]:
    """What the systems and priors of `smalti compare` sample, by data set."""
    names = {data: f"compare_{data}" for data in ("emoji", "mnist") if (QUALITY / f"compare_{data}.json").exists()}
    results = {data: run(name) for data, name in names.items()}
    found = {data: {one["name"]: one for one in result["generation"]} for data, result in results.items()}
    rows = []
    for name in dict.fromkeys(name for sets in found.values() for name in sets):
        cells = []
        for sets in found.values():
            one = sets.get(name)
            cells += [format_metric(key, one[key], one[f"{key}_spread"]) for key in KINDS] if one else ["-", "-"]
        rows.append([name, *cells])
    header = ["images", *(f"{data}: {heading(key)}" for data in found for key in KINDS)]
    counts = ", ".join(f"{result['num_images']} of {data} in {result['time']}" for data, result in results.items())
    return [*markdown_table(header, rows), "", f"Images of each set, and the time of the whole command: {counts}.",
            *measured(list(results.values()))]  # fmt: skip


def denoising() -> list[str]:
    names = {("emoji", 0.1): "emoji_noise_010", ("emoji", 0.25): "emoji_noise_025",
             ("CIFAR-10", 0.1): "cifar_noise_010", ("CIFAR-10", 0.25): "cifar_noise_025"}  # fmt: skip
    filters = ("median", "total_variation", "nl_means", "wavelet")
    results, rows = {key: run(name) for key, name in names.items()}, []
    for (data, level), result in results.items():
        row = next(row for row in result["denoising"]["rows"] if row["level"] == level)
        cells = [f"{row[name]['psnr_db']:.2f}" for name in ("noisy", "restored", *filters)]
        rows.append([f"{data}, {level:g}", f"{result['denoising']['num_images']}", *cells, f"{row['ahead_db']:+.2f}"])
    shown = [name.replace("_", " ") for name in filters]
    header = ["data, standard deviation", "images", "noisy, dB", "AE, dB", *shown, "ahead of the best, dB"]
    return [*markdown_table(header, rows), *measured(list(results.values()))]


def published() -> list[str]:
    results = [run(name) for name in ("mnist_vae", "mnist_pixelcnn", "mnist_reinmax", "cifar_vqvae")]
    rows = []
    for result in results:
        known = dict(result["published"])
        source = known.pop("source")
        rows += [
            [
                f"{result['data']}: {result['note']}",
                heading(metric),
                f"{value:g}",
                format_metric(metric, result["metrics"][metric]),
                source,
            ]
            for metric, value in known.items()
        ]
    return markdown_table(["run", "metric", "published", "here", "source"], rows) + measured(results)


def metrics() -> list[str]:
    """Every metric of the catalogue; the distances of other sets in one row each set."""
    rows = [
        [f"`{name}`", markdown_text(heading(name)), markdown_text(metric.meaning)]
        for name, metric in METRICS.items()
        if not name.startswith(tuple(SETS))
    ]
    rows += [
        [f"`{prefix}...`", f"..., {whose}", f"The distances of sets. {meaning}"]
        for prefix, (whose, _, meaning) in SETS.items()
    ]
    return markdown_table(["metric", "in tables", "what it is"], rows)


def keep(folder: Path, name: str, time: str) -> None:
    """Put what a run measured into its result file; commands, notes and published figures there stay."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from common import machine  # pyright: ignore[reportMissingImports]

    path = QUALITY / f"{name}.json"
    old = run(name) if path.exists() else {}
    evaluation, environment = (
        json.loads((folder / file).read_text(encoding="utf-8")) for file in ("evaluation.json", "environment.json")
    )
    kept = ("data", "split", "num_images", "preprocessing", "networks", "metrics", "spread", "originals",
            "probes", "denoising")  # fmt: skip
    new = {key: evaluation[key] for key in kept if key in evaluation}
    new |= {"threads": environment["threads"], "torch": environment["torch"], **machine(), "time": time}
    path.write_text(json.dumps({**old, **new}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path}")


# ------------------------------------------------------------------ pages

TABLES: dict[str, Callable[[], list[str]]] = {
    "reconstruction": reconstruction,
    "generation": generation,
    "metrics": metrics,
    "published": published,
    "photographs": photographs,
    "photographs_hour": photographs_hour,
    "flowers": flowers,
    "probes": probes,
    "samples": samples,
    "denoising": denoising,
    **speed_tables.TABLES,
    **scale_tables.TABLES,
}


def rewritten(text: str) -> str:
    """A page with its tables made from the results as they are now."""

    def table(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return "\n".join([begin, *TABLES[name](), "", end])

    return MARKED.sub(table, text)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--keep", nargs=2, metavar=("RUN", "NAME"))
    parser.add_argument("--time", default="", help="that the training of RUN took")
    chosen = parser.parse_args(argv)
    if chosen.keep:
        keep(Path(chosen.keep[0]), chosen.keep[1], chosen.time)
    stale = []
    for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("experiments/*.md"))]:
        text = page.read_text(encoding="utf-8")
        if (new := rewritten(text)) != text:
            stale.append(page.name)
            if not chosen.check:
                page.write_text(new, encoding="utf-8")
    if stale:
        print(f"{'not up to date' if chosen.check else 'wrote'}: {', '.join(stale)}")
    return 1 if chosen.check and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

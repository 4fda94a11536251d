"""Writes the tables of README.md, docs/ and experiments/ from the result files; keeps what a run measured.

    python tools/tables.py                              # write them
    python tools/tables.py --check                      # exit 1 where one is not up to date
    python tools/tables.py --keep runs/dvae emoji_dvae  # RUN/evaluation.json to experiments/results/emoji_dvae.json

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`. Quality is in experiments/results/*.json, one
file a run; speed in benchmarks/results/*.json, one entry a workload and variant of the kernels.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the smalti beside this file, not another that is installed

from smalti.evaluation.catalogue import METRICS, SETS, format_metric, heading
from smalti.reports.tables import Row, as_markdown, markdown_table, markdown_text

ROOT = Path(__file__).parent.parent
QUALITY, SPEED = ROOT / "experiments" / "results", ROOT / "benchmarks" / "results"
MARKED = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", flags=re.DOTALL)
VARIANTS = {"avx2": "AVX2", "avx512": "AVX-512", "portable": "portable", "off": "no kernels"}
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
    return compared_runs("system", names, ())


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
    names = {"likelihood alone": "photo_plain", "with both terms": "photo_both", "likelihood, patch 4": "photo_patch4"}
    metrics = ("psnr_db", "ssim", "effnet_lpips", "fd_effnet", "kid_effnet", "border_ratio", "period2_energy",
               "ring_error", "sharpness", "usage")  # fmt: skip
    return compared_runs("loss", names, metrics)


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
        for prefix, (whose, meaning) in SETS.items()
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


# ------------------------------------------------------------------ speed


def timings(name: str) -> list[Result]:
    path = SPEED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def variants_of(results: Sequence[Result]) -> list[str]:
    return [variant for variant in VARIANTS if any(result["kernels"] == variant for result in results)]


def times(ratio: Result | None) -> str:
    if not ratio:
        return ""
    low, high = ratio["range"]
    return f"{number(ratio['median'])} ({number(low)} to {number(high)})"


def number(value: float) -> str:
    """Three digits or all whole ones."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


PEERS = (  # file, workload, what, side, who
    ("lookup", "lookup, N 16384, D 64, K 8192", "nearest of 8,192 codes, D = 64", "vector-quantize-pytorch", ""),
    ("lookup", "lookup, N 16384, D 64, K 8192", "the same", "faiss IndexFlatL2", ""),
    ("gumbel", "straight-through, 8 x 8192 x 16 x 16, D 128", "Gumbel-Softmax bottleneck, forward and backward",
     "F.gumbel_softmax + einsum", "PyTorch: `F.gumbel_softmax` and an einsum"),
    ("sampling", "transformer, 8 layers x 512, 256 codes, batch 16", "sampling 256 codes, transformer, batch 16",
     "GPT-2 of transformers, cache", "GPT-2 of `transformers` with its KV cache"),
)  # fmt: skip


def speed() -> list[str]:
    results = {(file, one["workload"], one["kernels"]): one for file, *_ in PEERS for one in timings(file)}
    shown = ("avx2", "avx512")
    rows, used = [], []
    for file, workload, what, side, who in PEERS:
        found = [results.get((file, workload, variant)) for variant in shown]
        used += [one for one in found if one]
        cells = [times(one["ratios"][side]) if one else "not measured" for one in found]
        rows.append([what, who or side, *cells])
    places = []
    for variant in variants_of(used):
        own = [one for one in used if one["kernels"] == variant]
        processors, commits = (", ".join(dict.fromkeys(one[key] for one in own)) for key in ("processor", "commit"))
        places.append(f"{VARIANTS[variant]}: {processors}, {own[0]['threads']} threads, commit {commits}")
    header = ["operation", "peer", *(f"times faster, {VARIANTS[variant]}" for variant in shown)]
    return [
        *markdown_table(header, rows),
        "",
        f"Medians of the per-round ratios, with their range. {'; '.join(places)}.",
    ]


def where(result: Result) -> str:
    return f"{result['processor']}, commit {result['commit']}, {result['date']}"


def compared(name: str) -> list[str]:
    """One row a workload and side, the variants of the kernels side by side."""
    results = [result for result in timings(name) if "rates" in result]
    variants = variants_of(results)
    found = {(result["workload"], result["kernels"]): result for result in results}
    rows = []
    for workload in dict.fromkeys(result["workload"] for result in results):
        own = [found.get((workload, variant)) for variant in variants]
        unit = next(result["unit"] for result in own if result)
        label = workload
        for side in dict.fromkeys(side for result in own if result for side in result["rates"]):
            cells = []
            for result in own:
                rate = result["rates"].get(side) if result else None
                cells += (
                    ["", ""] if rate is None or result is None else [number(rate), times(result["ratios"].get(side))]
                )
            rows.append([label, f"{side}, {unit}" if label else side, *cells])
            label = ""
        for part in dict.fromkeys(part for result in own if result for part in result.get("parts", {})):
            cells = [text for result in own for text in ("", times((result or {}).get("parts", {}).get(part)))]
            rows.append(["", f"*what {part} give{'' if part.endswith('s') else 's'}*", *cells])
    columns = [
        f"{VARIANTS[variant]}: {what}" for variant in variants for what in ("rate", "first side over it (range)")
    ]
    return markdown_table(["workload", "side", *columns], rows)


def conditions(name: str) -> list[str]:
    """Machine, threads, rounds, peak and neighbours of each variant."""
    lines = []
    for variant in variants_of(timings(name)):
        results = [one for one in timings(name) if one["kernels"] == variant and "rates" in one]

        def span(key: str, results: list[Result] = results) -> str:
            values = sorted({result[key] for result in results})
            return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"

        places = "; ".join(dict.fromkeys(where(result) for result in results))
        lines.append(
            f"- {VARIANTS[variant]}: {places}; {span('threads')} threads, {span('rounds')} rounds; FMA peak of the "
            f"same run {span('peak_gflops')} GF/s; neighbours used {span('neighbour_load_cores')} cores"
        )
    return lines


def facts(name: str) -> list[str]:
    """What workloads tell besides rates."""
    lines = []
    for result in timings(name):
        found = []
        if "share_of_peak" in result:
            found.append(f"{result['smalti_gflops']} GF/s, {result['share_of_peak']:.0%} of the peak")
        if "codes_unlike_float64" in result:
            unlike = ", ".join(f"{side} {count}" for side, count in result["codes_unlike_float64"].items())
            found.append(f"codes unlike float64's: {unlike}")
        if "codes_unlike_the_peers" in result:
            found.append(
                "{} of {} codes unlike the peer's, all within rounding".format(*result["codes_unlike_the_peers"])
            )
        for key, unit in (("extra_megabytes", "MB"), ("extra_memory_in_logits", "sizes of the logits")):
            if isinstance(result.get(key), dict):
                found.append(f"extra memory in {unit}: " + ", ".join(f"{side} {n}" for side, n in result[key].items()))
            elif key in result:
                found.append(f"extra memory {result[key]} {unit}")
        if "mean_difference_of_255" in result:
            found.append(f"pixels differ by {result['mean_difference_of_255']} of 255 on average from Pillow's resize")
        if "in_K" in result:
            found.append(f"time grows as K^{result['in_K']} and N^{result['in_N']} over three sizes each")
        if found:
            lines.append(f"- {result['workload']}, {VARIANTS[result['kernels']]}: {'; '.join(found)}")
    return lines


def benchmark(name: str) -> Callable[[], list[str]]:
    """The table of one file of results."""

    def table() -> list[str]:
        if not timings(name):
            return [f"Not measured yet: `make bench-{name}`."]
        more = facts(name)
        return [f"`make bench-{name}`", "", *conditions(name), "", *compared(name), *(["", *more] if more else [])]

    return table


def imports() -> list[str]:
    rows = [
        [
            f"`{one['workload']}`",
            f"{one['seconds']}",
            f"{one['of_import_torch']} ({one['range'][0]} to {one['range'][1]})",
        ]
        for one in timings("imports")
        if one["kernels"] == timings("imports")[-1]["kernels"]
    ]
    header = ["process", "seconds", "of `import torch`, median (range)"]
    return [*markdown_table(header, rows), "", f"`make bench-imports`; {where(timings('imports')[-1])}."]


def process() -> list[str]:
    alone, busy = timings("process")[-2:]
    rows = [
        [name, f"{rate}", f"{alone['page_faults'][name]:,.0f}", f"{busy['images_per_second'][name]}"]
        for name, rate in alone["images_per_second"].items()
    ]
    header = ["images per second of a training step", "alone", "page faults a step", "beside a busy process"]
    return [*markdown_table(header, rows), "", f"`make bench-process`; {where(alone)}."]


def validation() -> list[str]:
    results = timings("validation")
    if not results:
        return ["Not measured yet: `make bench-validation`."]
    rows = [
        [
            f"{one['workload']}, {one['seconds']} s",
            f"{one['validations']} of {one['images']} images",
            f"{one['seconds_of_a_validation']}, {one['seconds_of_reading']}",
            f"{one['share']:.2%} ({one['range'][0]:.2%} to {one['range'][1]:.2%})",
        ]
        for one in results
    ]
    header = ["training", "validations", "seconds of one, of reading the images once", "share of the time (range)"]
    last = results[-1]
    told = f"{where(last)}; {last['threads']} threads, neighbours used {last['neighbour_load_cores']} cores"
    return [*markdown_table(header, rows), "", f"`make bench-validation`; {told}."]


def codec() -> list[str]:
    sets = [timings(f"codec_{name}")[-1] for name in ("emoji", "cifar10")]

    def bits(result: Result, size: float) -> str:
        images, height, width = result["grids"]
        return f"{8 * size / (images * height * width):.3f}"

    names = {"fixed": "fixed length", "histogram": "histogram", "zstd -22": "zstd -22", "xz -9e": "xz -9e",
             "adaptive": "adaptive", "prior": "prior (transformer)"}  # fmt: skip
    rows = [[label, *(bits(result, result["bytes"][name]) for result in sets)] for name, label in names.items()]
    rows.append(["the prior's own bits", *(bits(result, result["prior_own_bytes"]) for result in sets)])
    header = ["bits per code"]
    header += [f"{result['workload']}, {result['grids'][0]:,} images, K = {result['codebook_size']}" for result in sets]
    return [*markdown_table(header, rows), "", f"`python benchmarks/codec.py`, one thread; {where(sets[0])}."]


# ------------------------------------------------------------------ pages

TABLES: dict[str, Callable[[], list[str]]] = {
    "reconstruction": reconstruction,
    "generation": generation,
    "metrics": metrics,
    "speed": speed,
    "published": published,
    "photographs": photographs,
    "probes": probes,
    "samples": samples,
    "denoising": denoising,
    "codec": codec,
    "process": process,
    "imports": imports,
    "validation": validation,
    **{
        name: benchmark(name)
        for name in ("lookup", "gumbel", "training_step", "encode", "sampling", "against", "data_loading")
    },
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

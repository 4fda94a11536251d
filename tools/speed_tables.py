"""The tables of speed, from benchmarks/results/*.json: one entry a workload and variant of the kernels."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smalti.interop.formats import FORMATS
from smalti.reports.tables import Row, as_markdown, markdown_table

SPEED = Path(__file__).parent.parent / "benchmarks" / "results"
VARIANTS = {"avx2": "AVX2", "avx512": "AVX-512", "portable": "portable", "off": "no kernels"}
Result = dict[str, Any]


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


def profile_step() -> list[str]:
    results = timings("profile_step")
    if not results:
        return ["Not measured yet: `make bench-profile_step`."]
    names = [*results[0]["parts"], *results[0]["operators"]]
    rows = [["milliseconds", *(f"{one['milliseconds']}" for one in results)]]
    for name in names:
        part = name in results[0]["parts"]
        shares = [one["parts"][name] / one["milliseconds"] if part else one["operators"][name] for one in results]
        rows.append([name if part else f"of the operators: {name}", *(f"{share:.1%}" for share in shares)])
    places = "; ".join(dict.fromkeys(where(one) for one in results))
    header = ["CPU time of a step", *(one["workload"] for one in results)]
    return [*markdown_table(header, rows), "", f"`make bench-profile_step`, one thread; {places}."]


def large_images() -> list[str]:
    """Peak memory and time of every verb on a photograph."""
    results = [one for one in timings("large_images") if "verbs" in one]
    if not results:
        return ["Not measured yet: `make bench-large_images`."]
    rows = [
        [one["workload"], f"`{verb}`", f"{used['peak_mb']:,}", f"{used['cpu_seconds']:.0f}"]
        for one in results
        for verb, used in one["verbs"].items()
    ]
    last = results[-1]
    told = f"{where(last)}; {last['threads']} threads; {last['size'][1]} x {last['size'][0]} pixels"
    header = ["recipe", "verb", "peak memory, MB", "seconds of the processor"]
    return [*markdown_table(header, rows), "", f"`make bench-large_images`; {told}."]


def server() -> list[str]:
    """What clients of the server waited for, and what it grew by."""
    results = timings("server")
    if not results:
        return ["Not measured yet: `make bench-server`."]
    last = results[-1]
    acts = {**last["acts"], "all": {"requests": last["requests"], **last["all"]}}
    rows = [
        [what, f"{one['requests']:,}", f"{one['p50_ms']:,.0f}", f"{one['p99_ms']:,.0f}"] for what, one in acts.items()
    ]
    told = (
        f"{last['workload']} on loopback, {last['requests_per_second']} requests/s; {last['wrong']} answers other than "
        f"the model's; the server grew by {last['grown_mb']} MB, to {last['resident_mb']} MB."
    )
    told += (
        f" From the command to the page {last['seconds_to_the_page']} s, to the first answer about a model "
        f"{last['seconds_to_the_models']} s."
    )
    header = ["request", "how many", "p50, ms", "p99, ms"]
    more = f"`make bench-server`; {where(last)}; {last['threads']} threads, load average {last['load']}"
    return [*markdown_table(header, rows), "", f"{told} {more}."]


def tile_differences() -> list[str]:
    """What tiles change, for networks that see less than the halo, more, and everything."""
    results = [one for one in timings("large_images") if "differences" in one]
    if not results:
        return ["Not measured yet: `make bench-large_images`."]
    rows = [
        [
            name,
            "all" if one["reach_px"] is None else f"{one['reach_px']}",
            f"{one['codes_that_differ']:.4%}",
            "equal" if one["psnr_db"] is None else f"{one['psnr_db']}",
        ]
        for name, one in results[-1]["differences"].items()
    ]
    header = ["networks, random weights", "reach, px", "codes that differ", "PSNR of the same codes decoded, dB"]
    return [*markdown_table(header, rows), "", f"`make bench-large_images`; {where(results[-1])}."]


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


def quality() -> list[str]:
    """What each side reached in the same CPU seconds, a table a data set; nothing before it was measured."""
    lines = []
    for result in timings("quality"):
        where_from = {"data": result["workload"], "split": "test", "num_images": result["images"]}
        rows = [
            Row(
                name,
                {**where_from, "metrics": side["metrics"], "originals": result["originals"]},
                {
                    "K": side["codebook_size"],
                    "parameters": side["parameters"],
                    "images seen": side["images_seen"],
                    "CPU seconds": side["cpu_seconds"],
                    "precision": side["precision"],
                },
            )
            for name, side in result["sides"].items()
        ]
        *table, measured_on = as_markdown(rows, what="side").splitlines()
        told = f"{result['seconds']:g} CPU seconds of {result['threads']} thread; {where(result)}"
        lines += [*table, f"{measured_on} {told}; neighbours used {result['neighbour_load_cores']} cores.", ""]
    return ["`make bench-quality`", "", *lines[:-1]] if lines else []


LICENCES = {  # of projects whose files are in the format of another
    "mindalle": "Apache-2.0; not known (its second stage is CC BY-NC-SA 4.0)",
    "dalle_mini": "Apache-2.0; not checked",
}


def interop() -> list[str]:
    """Converted models beside the originals, a row a format."""
    results = [one for one in timings("interop") if "original" in one]
    if not results:
        return ["Not measured yet: `make interop SOURCES=DIR`."]
    order = list(FORMATS)
    rows = []
    for one in sorted(results, key=lambda one: order.index(one["format"])):
        format, differ = FORMATS[one["format"]], f"{one['different']} of {one['codes']:,}"
        rows.append(
            [
                f"`{one['format']}`" + (f" ({one['workload']})" if one["workload"] != one["format"] else ""),
                one["original"],
                differ + (f", {one['ties']} ties" if one["ties"] else ""),
                "no decoder" if one["pixels"] is None else f"{one['pixels']:.0e}",
                f"{one['tensors']}" + (f", {one['left_out']} left out" if one["left_out"] else ""),
                LICENCES.get(one["workload"], f"{format.code}; {format.weights}"),
            ]
        )
    header = ["format", "original code", "codes that differ", "pixels within", "tensors used", "licence: code; weights"]
    versions = ", ".join(dict.fromkeys(version for one in results for version in one["torch"]))
    return [*markdown_table(header, rows), "", f"`make interop SOURCES=DIR`; {where(results[-1])}; torch {versions}."]


def interop_speed() -> list[str]:
    """VQGAN f16 at full size beside taming's code."""
    results = [one for one in timings("interop") if "peak_mb" in one]
    if not results:
        return ["Not measured yet: `make bench-interop`."]
    rows = []
    for one in results:
        for index, (side, seconds) in enumerate(one["seconds"].items()):
            ratio = times(one["ratios"].get(side)) or "1"
            rows.append(["" if index else one["workload"], side, number(seconds), f"{one['peak_mb'][side]:,}", ratio])
    last = results[-1]
    told = f"{where(last)}; {last['threads']} threads, medians of {last['rounds']} rounds in rotated order"
    header = ["", "side, arithmetic", "seconds", "peak memory, MB", "smalti's fp32 is faster by"]
    return [*markdown_table(header, rows), "", f"`make bench-interop`; {told}."]


def graphs() -> list[str]:
    """Exported graphs beside smalti on photographs, a row a bottleneck or converted format."""
    results = timings("graphs")
    if not results:
        return ["Not measured yet: `make bench-graphs PHOTOS=DIR`."]
    rows = []
    for one in results:
        differ = f"{one['different']} of {one['positions']:,}" + (f", {one['ties']} ties" if one["ties"] else "")
        differ += f"; {one['different_widely']} by more than 1e-5" if one["different"] else ""
        times = [one["seconds"].get(verb) for verb in ("encode", "decode")]
        rows.append(
            [
                one["workload"],
                f"{one['perplexity']:,.0f} of {one['codebook_size']:,}" if one["positions"] else "no codes",
                differ if one["positions"] else "-",
                f"{one['largest']:.0e}",
                ", ".join(f"{one['bytes'][name] / 1e6:.2f}" for name in ("encoder", "decoder") if name in one["bytes"]),
                *(f"{own['smalti']:.3f}, {own['onnxruntime']:.3f}" if own else "-" for own in times),
            ]
        )
    sizes = dict.fromkeys(f"{one['images']} of {one['size'][0]} x {one['size'][1]}" for one in results)
    header = ["model", "perplexity", "codes that differ", "pixels within", "encoder, decoder, MB",
              "encode, s of CPU: smalti, onnxruntime", "decode, s"]  # fmt: skip
    told = (
        f"photographs: {', '.join(sizes)}; {where(results[-1])}; {results[-1]['threads']} thread, one image at a time"
    )
    return [*markdown_table(header, rows), "", f"`make bench-graphs PHOTOS=DIR`; {told}."]


TABLES: dict[str, Callable[[], list[str]]] = {
    "speed": speed,
    "codec": codec,
    "process": process,
    "imports": imports,
    "validation": validation,
    "profile_step": profile_step,
    "quality": quality,
    "large_images": large_images,
    "tile_differences": tile_differences,
    "interop": interop,
    "interop_speed": interop_speed,
    "server": server,
    "graphs": graphs,
    **{
        name: benchmark(name)
        for name in ("lookup", "gumbel", "training_step", "encode", "sampling", "against", "data_loading", "precision")
    },
}

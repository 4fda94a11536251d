"""Writes the tables of docs/performance.md from benchmarks/results/*.json.

python benchmarks/table.py
"""

import json
from pathlib import Path

RESULTS, PAGE = Path(__file__).parent / "results", Path(__file__).parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- tables, by benchmarks/table.py -->", "<!-- end of tables -->"
WORKLOADS = {
    "lookup": "Nearest code, and a step of a vector quantizer",
    "gumbel": "The Gumbel-Softmax bottleneck, forward and backward",
    "training_step": "A training step of a dVAE",
    "encode": "Images to codes",
    "sampling": "Drawing codes",
    "data_loading": "Reading images",
}


def compared(results: list[dict]) -> list[str]:
    """One row a workload and other side: rates, ratio, range."""
    lines = ["| workload | side | rate | smalti's rate over it, median (range) |", "|---|---|---|---|"]
    for result in results:
        name, unit = result["workload"], result["unit"]
        for side, rate in result["rates"].items():
            ratio = result["ratios"].get(side)
            times = f"{ratio['median']} ({ratio['range'][0]} to {ratio['range'][1]})" if ratio else ""
            lines.append(f"| {name} | {side} | {rate:,.4g} {unit} | {times} |")
            name = ""
    return lines


def conditions(results: list[dict]) -> str:
    """Threads, rounds, peak and neighbours, over all of a file's workloads."""

    def span(key: str) -> str:
        values = sorted({result[key] for result in results})
        return f"{values[0]}" if len(values) == 1 else f"{values[0]} to {values[-1]}"

    run = f"{span('threads')} threads, {span('rounds')} rounds; FMA peak of the same run {span('peak_gflops')} GF/s"
    return f"{run}; neighbours used {span('neighbour_load_cores')} cores."


def more(results: list[dict]) -> list[str]:
    """What a workload tells besides rates."""
    lines = []
    for result in results:
        facts = []
        if "share_of_peak" in result:
            facts.append(f"{result['smalti_gflops']} GF/s, {result['share_of_peak']:.0%} of the peak")
        if "codes_unlike_float64" in result:
            unlike = ", ".join(f"{side} {count}" for side, count in result["codes_unlike_float64"].items())
            facts.append(f"codes unlike float64's: {unlike}")
        if "codes_unlike_the_peers" in result:
            facts.append(
                "{} of {} codes unlike the peer's, all within rounding".format(*result["codes_unlike_the_peers"])
            )
        for key, unit in (("extra_megabytes", "MB"), ("extra_memory_in_logits", "sizes of the logits")):
            if isinstance(result.get(key), dict):
                facts.append(f"extra memory in {unit}: " + ", ".join(f"{side} {n}" for side, n in result[key].items()))
            elif key in result:
                facts.append(f"extra memory {result[key]} {unit}")
        if "mean_difference_of_255" in result:
            facts.append(f"pixels differ by {result['mean_difference_of_255']} of 255 on average from Pillow's resize")
        if facts:
            lines.append(f"- {result['workload']}: {'; '.join(facts)}")
        if "in_K" in result:
            lines.append(f"- time grows as K^{result['in_K']} and N^{result['in_N']} over three sizes each")
    return lines


def imports(results: list[dict]) -> list[str]:
    lines = ["| process | seconds | of `import torch`, median (range) |", "|---|---|---|"]
    return lines + [
        f"| `{r['what']}` | {r['seconds']} | {r['of_import_torch']} ({r['range'][0]} to {r['range'][1]}) |"
        for r in results
    ]


def tables() -> str:
    parts = []
    for name, title in WORKLOADS.items():
        path = RESULTS / f"{name}.json"
        if not path.exists():
            parts += [f"## {title}", "", f"Not measured yet: `make bench-{name}`.", ""]
            continue
        results = json.loads(path.read_text(encoding="utf-8"))
        timed = [result for result in results if "rates" in result]
        parts += [f"## {title}", "", f"`make bench-{name}`. {conditions(timed)}", "", *compared(timed), ""]
        facts = more(results)
        parts += [*facts, ""] if facts else []
    path = RESULTS / "imports.json"
    if path.exists():
        parts += [
            "## Imports",
            "",
            "`make bench-imports`.",
            "",
            *imports(json.loads(path.read_text(encoding="utf-8"))),
            "",
        ]
    return "\n".join(parts)


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables()}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()

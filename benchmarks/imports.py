"""How long imports take, each in fresh processes: smalti beside torch alone, `smalti --help`, entropy coding.

    python benchmarks/imports.py

Ratios are those within a round; the rounds rotate the order.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import save

LINES = {
    "import torch": ["-c", "import torch"],
    "import torch, smalti": ["-c", "import torch, smalti"],
    "import smalti and its Autoencoder": ["-c", "import smalti; smalti.Autoencoder"],
    "import smalti.codec": ["-c", "import smalti.codec"],
    "smalti --help": ["-m", "smalti", "--help"],
}
BASE = "import torch"


def seconds(words: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds, names = parser.parse_args().rounds, list(LINES)
    for words in LINES.values():
        seconds(words)  # warm-up: the files are in memory then
    times: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names[index % len(names) :] + names[: index % len(names)]:
            times[name].append(seconds(LINES[name]))
    results = []
    for name in names:
        ratios = [own / base for own, base in zip(times[name], times[BASE], strict=True)]
        result = {
            "workload": name,
            "seconds": round(statistics.median(times[name]), 3),
            "of_import_torch": round(statistics.median(ratios), 3),
            "range": [round(min(ratios), 3), round(max(ratios), 3)],
            "rounds": rounds,
        }
        print(f"{name:<36} {result['seconds']:6.3f} s   {result['of_import_torch']:.3f} of {BASE} {result['range']}")
        results.append(result)
    save(results, Path(__file__).parent / "results" / "imports.json")


if __name__ == "__main__":
    main()

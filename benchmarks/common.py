"""Two sides of one workload in one run: rotated order, warm-up, 7 rounds or more, medians of the per-round ratios."""

import ctypes
import datetime
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import torch

from smalti.environment import commit
from smalti.ops.native import kernels

ROUNDS = 7
PEAK = """
import re, sys, time
from smalti.apps.cli import main
failed = main(sys.argv[1:])
with open("/proc/self/status", encoding="ascii") as file:  # getrusage would know the peak of this process's parent too
    peak = int(re.search(r"VmHWM:\\s*(\\d+)", file.read())[1])
print("USED", failed, peak // 1024, time.process_time())
"""


def used_by(*arguments: object) -> dict[str, float]:
    """What a verb in a process of its own takes: peak megabytes, seconds, and seconds of the processor."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, arguments)], capture_output=True, text=True)
    seconds, words = time.perf_counter() - start, done.stdout.rsplit("USED", 1)[-1].split()
    if done.returncode or words[0] != "0":
        raise SystemExit(f"{arguments[0]} failed: {done.stderr}")
    return {"peak_mb": int(words[1]), "seconds": round(seconds, 1), "cpu_seconds": round(float(words[2]), 1)}


def cpu_times() -> tuple[float, float]:
    """Seconds of CPU that this machine and this process have used."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(value) for value in file.readline().split()[1:]]
    busy = sum(fields[:3]) + sum(fields[5:8])
    return busy / os.sysconf("SC_CLK_TCK"), time.process_time()


def fma_peak() -> float:
    """GFLOP/s of fused multiply-adds on the threads in use, without any memory: what this machine can do right now."""
    library, threads, iterations, best = peak_library(), torch.get_num_threads(), 2_000_000, 0.0
    if library is None:
        return product_rate()
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(7):
            start = time.perf_counter()
            chains = list(pool.map(lambda _: peak_chains(library, iterations), range(threads)))
            seconds = time.perf_counter() - start
            best = max(best, 2 * iterations * sum(map(len, chains)) / seconds / 1e9)
    return best


@cache
def peak_library() -> ctypes.CDLL | None:
    """`peak.c`, compiled for this processor; None where there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(__file__).with_name("peak.c"), f"{folder}/peak.so"
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", str(source), "-o", library]
        if compiler is None or subprocess.run(command, check=False).returncode:
            return None
        return ctypes.CDLL(library)


def peak_chains(library: ctypes.CDLL, iterations: int) -> np.ndarray:
    """Where all chains of `peak.c` end after so many multiply-adds each; they start between 1/4 and 3/4."""
    values = np.linspace(0.25, 0.75, library.peak_values(), dtype=np.float32)
    library.peak(ctypes.c_void_p(values.ctypes.data), ctypes.c_int64(iterations), ctypes.c_float(-1), ctypes.c_float(1))
    return values


def product_rate() -> float:
    """GFLOP/s of a large float32 matrix product of torch on the threads in use."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        left @ right
        best = max(best, 2 * 1024**3 / (time.perf_counter() - start) / 1e9)
    return best


def compare(
    name: str,
    sides: Mapping[str, Callable[[], float]],
    ours: str,
    rounds: int = ROUNDS,
    unit: str = "codes/s",
    parts: Mapping[str, tuple[str, str]] | None = None,
) -> dict:
    """Run all sides in every round, in rotated order.

    Args:
        name: of the workload.
        sides: name to a function that does the work once and returns its rate, more is better.
        ours: the side that the others are compared with.
        rounds: how many.
        unit: of the rates.
        parts: of our advantage, each with the two sides whose ratio it is.

    Returns:
        Medians of the rates, medians and ranges of the per-round ratios ours / other, the load of neighbours.
    """
    names = list(sides)
    for side in names:
        sides[side]()  # warm-up
    rates: dict[str, list[float]] = {side: [] for side in names}
    loads = []
    for index in range(rounds):
        start, (busy, own) = time.perf_counter(), cpu_times()
        for side in names[index % len(names) :] + names[: index % len(names)]:
            rates[side].append(sides[side]())
        (busy_after, own_after), wall = cpu_times(), time.perf_counter() - start
        loads.append(max(0.0, (busy_after - busy) - (own_after - own)) / wall)
    result: dict = {
        "workload": name,
        "unit": unit,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
        "peak_gflops": round(fma_peak(), 1),
        "torch_product_gflops": round(product_rate(), 1),
        "neighbour_load_cores": round(statistics.median(loads), 2),
        "rates": {side: round(statistics.median(values), 2) for side, values in rates.items()},
        "ratios": {side: ratio(rates[ours], rates[side]) for side in names if side != ours},
    }
    if parts:
        result["parts"] = {part: ratio(rates[first], rates[second]) for part, (first, second) in parts.items()}
    print(as_text(result, ours), flush=True)
    return result


def ratio(first: list[float], second: list[float]) -> dict:
    """Median and range of the per-round ratios first / second."""
    ratios = [one / other for one, other in zip(first, second, strict=True)]
    return {"median": round(statistics.median(ratios), 2), "range": [round(min(ratios), 2), round(max(ratios), 2)]}


def as_text(result: dict, ours: str) -> str:
    """One result for a person."""
    lines = [
        f"{result['workload']} ({result['threads']} threads, {result['rounds']} rounds, FMA peak "
        f"{result['peak_gflops']} GF/s, neighbours {result['neighbour_load_cores']} cores)"
    ]
    for side, rate in result["rates"].items():
        found = result["ratios"].get(side)
        more = f"   {ours} is {found['median']}x ({found['range'][0]} to {found['range'][1]})" if found else ""
        lines.append(f"  {side:<28} {rate:>12,.1f} {result['unit']}{more}")
    lines += [
        f"  {part}: {found['median']}x ({found['range'][0]} to {found['range'][1]})"
        for part, found in result.get("parts", {}).items()
    ]
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """Where and with what something was measured: processor, variant of the kernels, commit, date."""
    native = kernels()
    with open("/proc/cpuinfo", encoding="ascii") as file:
        text = file.read()
    model, family, number = (
        re.search(rf"^{key}\s*: (.*)$", text, flags=re.MULTILINE) for key in ("model name", "cpu family", "model")
    )
    assert model and family and number
    return {
        "processor": f"{model[1]} (family {family[1]}, model {number[1]})",
        "kernels": native.variant if native else "off",
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def save(results: list[dict], path: Path) -> None:
    """Write results with their machine as JSON; one entry a workload and variant of the kernels, the newest.

    Args:
        results: each with a "workload".
        path: what it holds of other workloads and other variants stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = [{**result, **machine()} for result in results]
    entries = {(entry["workload"], entry["kernels"]): entry for entry in [*old, *new]}
    path.write_text(json.dumps(list(entries.values()), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")

"""A training step on all cores, alone and beside a busy process, with what the command line sets for its process.

    make bench-process

OpenMP's threads wait for each other in a loop before they sleep; when one of them has lost its core, the others burn
theirs: the command line makes the loop shorter. glibc gives freed memory back and takes it again page by page: the
command line keeps it. See `smalti.apps.process`.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from common import save

from smalti.apps.process import SPINS

STEP = """
import resource, time, torch
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
torch.manual_seed(0)
bottleneck = {"kind": "vector_quantizer", "codebook_size": 512, "code_dim": 16}
networks = {"kind": "residual", "width": 64, "depth": 2}
model = Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck)).train()
optimizer, images = torch.optim.AdamW(model.parameters(), 1e-3, fused=True), torch.rand(32, 3, 32, 32)
times = []
for step in range(8):
    if step == 3:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    start = time.perf_counter()
    out = model(images)
    (model.likelihood.nll(out.parameters, images).mean() + out.bottleneck.penalties["commitment"]).backward()
    optimizer.step()
    optimizer.zero_grad()
    model.bottleneck.update()
    times.append(time.perf_counter() - start)
print(32 / sorted(times[3:])[2], (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
"""
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str((1 << 31) - 1)}
SETTINGS: dict[str, dict[str, str]] = {
    "as the system has it": {},
    "threads wait less": {"GOMP_SPINCOUNT": SPINS},
    "freed memory kept": KEPT,
    "both, as smalti has it": {"GOMP_SPINCOUNT": SPINS} | KEPT,
    "passive threads, memory kept": {"OMP_WAIT_POLICY": "PASSIVE"} | KEPT,
}


def measure(setting: dict[str, str]) -> tuple[float, float]:
    """Images per second and page faults per step."""
    done = subprocess.run(
        [sys.executable, "-c", STEP], capture_output=True, text=True, check=True, env=os.environ | setting
    )
    rate, faults = map(float, done.stdout.split())
    return rate, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of fresh processes, eight steps each")
    rounds, results = parser.parse_args().rounds, []
    for busy in (False, True):
        neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
        names = list(SETTINGS)
        try:
            for index in range(rounds):
                for name in names[index % len(names) :] + names[: index % len(names)]:
                    found[name].append(measure(SETTINGS[name]))
        finally:
            if neighbour is not None:
                neighbour.kill()
        rates, faults = (
            {name: round(statistics.median(pair[part] for pair in pairs), 1) for name, pairs in found.items()}
            for part in (0, 1)
        )
        name = "beside a busy process" if busy else "alone"
        results.append({"workload": name, "images_per_second": rates, "page_faults": faults, "rounds": rounds})
        print(name)
        for name, rate in rates.items():
            print(f"  {name:<30} {rate:8.1f} images/s {faults[name]:10,.0f} page faults a step")
    save(results, Path(__file__).parent / "results" / "process.json")


if __name__ == "__main__":
    main()

"""A training step on all cores, alone and beside a busy process: with the waiting of `smalti train`, and without.

    python benchmarks/neighbour.py

OpenMP's threads wait for each other in a loop before they sleep; when one of them has lost its core, the others burn
theirs. The command line makes the loop shorter (GOMP_SPINCOUNT, see `smalti.apps.cli`).
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from common import save

from smalti.apps.cli import SPINS

STEP = """
import time, torch
from smalti.models.autoencoder import Autoencoder
from smalti.models.config import AutoencoderConfig
torch.manual_seed(0)
bottleneck = {"kind": "vector_quantizer", "codebook_size": 512, "code_dim": 16}
networks = {"kind": "residual", "width": 64, "depth": 2}
model = Autoencoder(AutoencoderConfig(networks=networks, bottleneck=bottleneck)).train()
optimizer, images = torch.optim.AdamW(model.parameters(), 1e-3, fused=True), torch.rand(32, 3, 32, 32)
times = []
for _ in range(5):
    start = time.perf_counter()
    out = model(images)
    (model.likelihood.nll(out.parameters, images).mean() + out.bottleneck.penalties["commitment"]).backward()
    optimizer.step()
    optimizer.zero_grad()
    model.bottleneck.update()
    times.append(time.perf_counter() - start)
print(32 / sorted(times)[len(times) // 2])
"""
SETTINGS = {
    "as OpenMP has it": {},
    "as smalti has it": {"GOMP_SPINCOUNT": SPINS},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
}


def images_per_second(setting: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-c", STEP], capture_output=True, text=True, check=True, env=os.environ | setting
    )
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of fresh processes, five steps each")
    rounds, results = parser.parse_args().rounds, []
    for busy in (False, True):
        neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        rates: dict[str, list[float]] = {name: [] for name in SETTINGS}
        try:
            for _ in range(rounds):
                for name, setting in SETTINGS.items():
                    rates[name].append(images_per_second(setting))
        finally:
            if neighbour is not None:
                neighbour.kill()
        medians = {name: round(statistics.median(values), 1) for name, values in rates.items()}
        results.append({"neighbour": busy, "images_per_second": medians, "rounds": rounds})
        print(f"{'beside a busy process' if busy else 'alone':<24} {medians}")
    save(results, Path(__file__).parent / "results" / "neighbour.json")


if __name__ == "__main__":
    main()

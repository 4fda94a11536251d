"""The nearest code vector, and a whole step of a vector quantizer, beside the peers.

    make bench-lookup        # the environment of the peers, then: python benchmarks/lookup.py

Every side gets the same features and codebook; ours packs the codebook anew in every call. Before timing, the distance
to the code that each side chose is compared with the smallest one in float64.
"""

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import compare, save
from torch import Tensor

from smalti.apps.memory import memory_bytes, reset_peak
from smalti.models.bottlenecks import VectorQuantizer
from smalti.ops.native import kernels_for
from smalti.ops.nearest import nearest_code, nearest_code_reference

Lookup = Callable[[Tensor], Tensor]
SIZES = (
    (16384, 64, 512), (16384, 64, 2048), (16384, 64, 8192), (4096, 64, 8192), (1024, 64, 8192),
    (16384, 8, 8192), (4096, 8, 65536),
)  # fmt: skip
STEPS = ((16384, 64, 1024), (16384, 64, 8192))
BATCH, MARGIN = 16, 1e-6


def vector_quantize_pytorch(codebook: Tensor):
    from vector_quantize_pytorch import VectorQuantize

    size, dim = codebook.shape
    model = VectorQuantize(dim=dim, codebook_size=size, decay=0.99, commitment_weight=0.25, rotation_trick=False)
    model.codebook = codebook
    return model


def taming(codebook: Tensor):
    from taming.modules.vqvae.quantize import VectorQuantizer2

    model = VectorQuantizer2(len(codebook), codebook.shape[1], beta=0.25, legacy=False)
    model.embedding.weight.data.copy_(codebook)
    return model


def lookups(codebook: Tensor) -> dict[str, Lookup]:
    """Functions (N, D) -> (N,) of all sides that are installed."""
    bias = codebook.square().sum(1) / -2
    sides: dict[str, Lookup] = {
        "smalti": lambda features: nearest_code(features, codebook),
        "plain PyTorch, in chunks": lambda features: nearest_code_reference(features, codebook, bias),
    }
    if native := kernels_for(codebook):

        def floats(features: Tensor) -> Tensor:
            codes = torch.empty(len(features), dtype=torch.int64)
            native.nearest(features, codebook, codebook.square().sum(1) / -2, codes, 0)
            return codes

        sides["smalti, products of floats alone"] = floats
    try:
        model = vector_quantize_pytorch(codebook).eval()
        sides["vector-quantize-pytorch"] = lambda features: model(features[None])[1][0]
    except ImportError as error:
        print(f"vector-quantize-pytorch is not installed ({error})")
    try:
        quantizer = taming(codebook).eval()
        sides["taming"] = lambda features: quantizer(features.T.reshape(1, -1, 1, len(features)))[2][2].flatten()
    except ImportError as error:
        print(f"taming is not installed ({error})")
    try:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())

        def search(features: Tensor) -> Tensor:
            index = faiss.IndexFlatL2(codebook.shape[1])
            index.add(codebook.numpy())
            return torch.from_numpy(index.search(features.numpy(), 1)[1][:, 0])

        sides["faiss IndexFlatL2"] = search
    except ImportError as error:
        print(f"faiss is not installed ({error})")
    return sides


def check(features: Tensor, codebook: Tensor, codes: Tensor) -> tuple[int, bool]:
    """How many codes differ from the float64 arg min, and whether every one is as near within rounding."""
    different, fine = 0, True
    table = codebook.double()
    for part, chosen in zip(features.double().split(1024), codes.split(1024), strict=True):
        distances = (part.square().sum(1, keepdim=True) - 2 * part @ table.T + table.square().sum(1)).clamp(min=0)
        best, own = distances.min(1), distances.gather(1, chosen[:, None])[:, 0]
        different += int((best.indices != chosen).sum())
        fine &= bool((own <= best.values * (1 + MARGIN) + MARGIN * table.square().sum(1).max()).all())
    return different, fine


def timed(work: Callable[[], object], count: int) -> Callable[[], float]:
    """A side for `compare`: vectors per second of one call."""

    def run() -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            work()
        return count / (time.perf_counter() - start)

    return run


def one_lookup(count: int, dim: int, size: int, rounds: int) -> dict:
    torch.manual_seed(0)
    features, codebook = torch.randn(count, dim), torch.randn(size, dim)
    sides = lookups(codebook)
    with torch.inference_mode():
        different = {}
        for name, lookup in sides.items():
            different[name], fine = check(features, codebook, lookup(features))
            assert fine, f"{name} chose a code that is not the nearest"
    works = {name: timed(lambda lookup=lookup: lookup(features), count) for name, lookup in sides.items()}
    result = compare(f"lookup, N {count}, D {dim}, K {size}", works, "smalti", rounds, "vectors/s")
    result["size"], result["codes_unlike_float64"] = (count, dim, size), different
    with torch.inference_mode():
        result["extra_megabytes"] = round(extra_bytes(lambda: nearest_code(features, codebook)) / 2**20, 1)
    gflops = 2 * dim * size * result["rates"]["smalti"] / 1e9
    result["smalti_gflops"], result["share_of_peak"] = round(gflops, 1), round(gflops / result["peak_gflops"], 3)
    print(f"  smalti: {gflops:.1f} GF/s, {result['share_of_peak']:.0%} of the peak; unlike float64: {different}")
    return result


# ------------------------------------------------------------------ a whole step: forward, backward, codebook


def steps(codebook: Tensor) -> dict[str, Callable[[Tensor], None]]:
    """Functions of features (B, D, h, w) that do one training step each."""
    size, dim = codebook.shape
    own = VectorQuantizer(codebook_size=size, code_dim=dim, restart_below=0.0, start="random").train()
    own.codebook.table.copy_(codebook)

    def smalti(features: Tensor) -> None:
        out = own(features)
        (out.latents.sum() + 0.25 * out.penalties["commitment"]).backward()
        own.update()

    sides: dict[str, Callable[[Tensor], None]] = {"smalti": smalti}
    try:
        model = vector_quantize_pytorch(copy.deepcopy(codebook)).train()

        def theirs(features: Tensor) -> None:
            quantized, _, loss = model(features.permute(0, 2, 3, 1).flatten(1, 2))
            (quantized.sum() + loss.sum()).backward()

        sides["vector-quantize-pytorch"] = theirs
    except ImportError as error:
        print(f"vector-quantize-pytorch is not installed ({error})")
    try:
        quantizer = taming(codebook).train()
        optimizer = torch.optim.SGD(quantizer.parameters(), lr=1e-3)

        def older(features: Tensor) -> None:
            quantized, loss, _ = quantizer(features)
            (quantized.sum() + loss).backward()
            optimizer.step()
            optimizer.zero_grad()

        sides["taming"] = older
    except ImportError as error:
        print(f"taming is not installed ({error})")
    return sides


def extra_bytes(work: Callable[[], object]) -> int:
    """By how much a call raises the process's peak of memory."""
    before = memory_bytes("VmRSS")
    reset_peak()
    work()
    return max(0, memory_bytes("VmHWM") - before)


def one_step(count: int, dim: int, size: int, rounds: int) -> dict:
    torch.manual_seed(0)
    side = int((count // BATCH) ** 0.5)
    features, codebook = torch.randn(BATCH, dim, side, side), torch.randn(size, dim)
    works, memory = {}, {}
    for name, step in steps(codebook).items():

        def run(step: Callable[[Tensor], None] = step) -> float:
            leaf = features.clone().requires_grad_()
            start = time.perf_counter()
            step(leaf)
            assert leaf.grad is not None
            return count / (time.perf_counter() - start)

        works[name] = run
        run()
        memory[name] = extra_bytes(run)
    result = compare(f"step, N {count}, D {dim}, K {size}", works, "smalti", rounds, "vectors/s")
    result["extra_megabytes"] = {name: round(value / 2**20, 1) for name, value in memory.items()}
    print(f"  extra memory, MB: {result['extra_megabytes']}")
    return result


def growth(results: list[dict]) -> dict:
    """How our time grows over three sizes each: the slope of its logarithm over that of N, and of K; 1 is linear."""
    seconds = {result["size"]: result["size"][0] / result["rates"]["smalti"] for result in results}

    def slope(axis: int, sizes: list[tuple[int, int, int]]) -> float:
        points = np.array([[size[axis], seconds[size]] for size in sizes])
        return round(float(np.polyfit(*np.log(points).T, 1)[0]), 2)

    by_size = [(16384, 64, size) for size in (512, 2048, 8192)]
    by_count = [(count, 64, 8192) for count in (1024, 4096, 16384)]
    found = {"workload": "growth of the lookup", "in_K": slope(2, by_size), "in_N": slope(0, by_count)}
    print(found)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", default="benchmarks/results/lookup.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    results = [one_lookup(*size, arguments.rounds) for size in SIZES]
    results.append(growth(results))
    results += [one_step(*size, arguments.rounds) for size in STEPS]
    save(results, Path(arguments.out))


if __name__ == "__main__":
    main()

"""The Triton kernels in Triton's interpreter, against plain PyTorch; in a process of its own, which it takes over."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
from smalti.ops import triton_kernels as kernels
from smalti.ops.gumbel import gumbel_latents, gumbel_noise_of
from smalti.ops.native import kernels as native
from smalti.ops.nearest import nearest_code_reference

torch.manual_seed(0)
for rows, size, dim in ((5, 3, 2), (70, 130, 20), (33, 64, 16)):
    features, codebook, bias = torch.randn(rows, dim), torch.randn(size, dim), torch.randn(size)
    codebook[-1], bias[-1] = codebook[0], bias[0]  # a tie
    assert torch.equal(kernels.nearest(features, codebook, bias), nearest_code_reference(features, codebook, bias))
    logits, seed, temperature = 2 * torch.randn(rows, size), 1 << 61, 0.7
    for hard in (False, True):
        leaf, table = logits.clone().requires_grad_(), codebook.clone().requires_grad_()
        latents, kl, codes, drawn, stats = torch.ops.smalti.gumbel_softmax(leaf, table, temperature, hard, seed)
        up, up_kl = torch.randn(rows, dim), torch.randn(rows)
        wanted = torch.autograd.grad((latents * up).sum() + (kl * up_kl).sum(), [leaf, table])
        if native() is not None:  # the same noise, and so the same numbers
            found = kernels.gumbel(logits, codebook, temperature, hard, seed)
            for ours, theirs in zip(found, (latents, kl, codes, drawn, stats), strict=True):
                torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=2e-5)
            means = (latents.detach() * up).sum(1)
            gradients = kernels.gumbel_backward(logits, codebook, stats, means, up, up_kl, temperature, hard, seed)
            torch.testing.assert_close(gradients[0], wanted[0], rtol=1e-3, atol=1e-4)
            if not hard:
                torch.testing.assert_close(gradients[1], wanted[1], rtol=1e-3, atol=1e-4)
print("checked")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_in_the_interpreter():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "checked", done.stderr

"""PixelCNN drawn a row at a time by the kernel, against the stepper."""

import pytest
import torch

from smalti.ops.native import kernels
from smalti.priors.base import CausalPrior
from smalti.priors.pixelcnn import PixelCNN


@pytest.mark.skipif(kernels() is None, reason="no native kernels")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("temperature", [0, 0.7, 1])
@pytest.mark.parametrize(("batch", "channels", "kernel"), [(1, 5, 3), (5, 16, 5), (8, 24, 3)])
def test_rows_are_what_the_stepper_draws(batch, channels, kernel, temperature, threads, monkeypatch):
    torch.manual_seed(batch)
    prior = PixelCNN(
        codebook_size=11, grid=(4, 5), channels=channels, layers=2, kernel=kernel, num_conditions=3, first_kernel=5
    )
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    condition = torch.arange(batch) % 4 - 1
    mask = torch.rand(4, 5) < 0.3
    known = torch.randint(0, 11, (4, 5))
    found, before = [], torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for native in (True, False):
            with monkeypatch.context() as patch:
                if not native:
                    patch.setattr(PixelCNN, "_sample", CausalPrior._sample)
                for more in ({}, {"known": known, "mask": mask}):
                    generator = torch.Generator().manual_seed(7)
                    found.append(prior.sample(batch, condition, generator=generator, temperature=temperature, **more))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert (found[1][:, mask] == known[mask]).all()

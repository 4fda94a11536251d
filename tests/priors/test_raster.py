"""Convolutional priors drawn by the kernel, against their steppers."""

import pytest
import torch

from smalti.ops.native import kernels
from smalti.priors.base import CausalPrior
from smalti.priors.family import PRIORS
from smalti.priors.raster import RasterPrior

K = 11
SMALL = {
    "pixelcnn": [
        {"channels": 5, "layers": 2, "first_kernel": 5},
        {"channels": 16, "layers": 1, "kernel": 5},
        {"channels": 24, "layers": 2},
    ],
    "masked_pixelcnn": [{"channels": 6, "layers": 2, "code_dim": 1}, {"channels": 24, "layers": 1, "first_kernel": 3}],
    "pixelsnail": [
        {"channels": 6, "blocks": 1, "residuals": 1, "heads": 3, "key_width": 5},
        {"channels": 16, "blocks": 2, "residuals": 2, "heads": 2, "key_width": 8, "first_kernel": 3},
    ],
}
RULES = [{"temperature": 0}, {"temperature": 0.7}, {}, {"top_k": 3, "temperature": 1.2}, {"top_p": 0.6}, {"top_k": 1}]


def make(kind: str, options: dict[str, int], **more: object) -> RasterPrior:
    prior = PRIORS[kind](**{"codebook_size": K, "grid": (4, 5), "num_conditions": 3} | options | more)
    assert isinstance(prior, RasterPrior)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return prior


def test_every_convolutional_prior_is_drawn_natively():
    assert {kind for kind, prior in PRIORS.items() if issubclass(prior, RasterPrior)} == set(SMALL)


@pytest.mark.skipif(kernels() is None, reason="no native kernels")
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    ("kind", "options"), [(kind, options) for kind, several in SMALL.items() for options in several]
)
def test_the_kernel_draws_what_the_stepper_draws(kind, options, batch, threads, monkeypatch):
    torch.manual_seed(batch)
    prior = make(kind, options)
    condition = torch.arange(batch) % 4 - 1
    mask, known = torch.rand(4, 5) < 0.3, torch.randint(0, K, (4, 5))
    runs = [*RULES, {"known": known, "mask": mask}]
    found, before = [], torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        for native in (True, False):
            with monkeypatch.context() as patch:
                if not native:
                    patch.setattr(RasterPrior, "_sample", CausalPrior._sample)
                for rules in runs:
                    generator = torch.Generator().manual_seed(7)
                    found.append(prior.sample(batch, condition, generator=generator, **rules))
    finally:
        torch.set_num_threads(before)
    for rules, ours, theirs in zip(runs, found[: len(runs)], found[len(runs) :], strict=True):
        assert torch.equal(ours, theirs), rules
    assert (found[len(runs) - 1][:, mask] == known[mask]).all()


@pytest.mark.skipif(kernels() is None, reason="no native kernels")
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (7, 1), (2, 3)])
@pytest.mark.parametrize("kind", SMALL)
def test_grids_smaller_than_the_windows(kind, grid, monkeypatch):
    torch.manual_seed(0)
    prior = make(kind, SMALL[kind][0], grid=grid, first_kernel=7, num_conditions=0)
    native = prior.sample(3, generator=torch.Generator().manual_seed(7))
    monkeypatch.setattr(RasterPrior, "_sample", CausalPrior._sample)
    assert torch.equal(native, prior.sample(3, generator=torch.Generator().manual_seed(7)))

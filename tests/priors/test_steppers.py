"""The three ways to run a causal prior: all positions at once, cached in PyTorch, and by the native interpreter."""

import copy
import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smalti.errors import SmaltiError
from smalti.ops.native import VARIANTS, load
from smalti.priors.base import CausalPrior, Conditions
from smalti.priors.family import PRIORS
from smalti.priors.layers import CausalConv2d, attend, by_position, previous
from smalti.priors.machine import NativeStepper
from smalti.priors.plan import CachedStepper

K, GRID = 11, (4, 5)
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
    "transformer": [
        {"width": 6, "layers": 1, "heads": 3},
        {"width": 40, "layers": 2, "heads": 2},
        {"width": 16, "layers": 1, "heads": 2, "code_rank": 9},
        {"width": 16, "layers": 2, "heads": 2, "text_vocabulary": 5, "text_length": 19},
    ],
}
MEMBERS = [(kind, options) for kind, several in SMALL.items() for options in several]
AVAILABLE = [variant for variant in VARIANTS if load(variant) is not None]
CHOSEN = os.environ.get("SMALTI_KERNELS", "auto")  # `make test-kernels` goes through them
RULES = [
    {"temperature": 0},
    {"temperature": 0.7},
    {},
    {"top_k": 3, "temperature": 1.2},
    {"top_p": 0.6},
    {"top_k": 1},
    {"guidance": 2.5},
    {"guidance": 0.0, "temperature": 0.9},
    {"guidance": 1.7, "top_k": 4},
]


def make(kind, options, **more):
    conditions = {} if "text_length" in options or kind not in SMALL else {"num_conditions": 3}
    prior = PRIORS[kind](**{"codebook_size": K, "grid": GRID, **conditions, **options, **more})
    with torch.no_grad():
        for parameter in prior.parameters():  # away from the symmetric start, so that every dependence shows
            nn.init.normal_(parameter, std=max(1, parameter[0].numel()) ** -0.5)
    return prior.eval()


def condition(prior, batch):
    count, length = prior.conditions.count, prior.conditions.length
    if not count:
        return None
    return torch.arange(batch) % (count + 1) - 1 if length is None else torch.randint(-1, count, (batch, length))


def stepped(prior, codes, given):
    stepper, flat, rows = prior.stepper(len(codes), given), codes.flatten(1), []
    for place in range(flat.shape[1]):
        rows.append(stepper.step(flat[:, place - 1] if place else None))
    return stepper, torch.stack(rows, dim=1).view(*codes.shape, -1)


def test_every_network_prior_is_stepped_natively():
    """What has no codes to look at has no network; a new member is added to SMALL."""
    causal = {kind for kind, prior in PRIORS.items() if prior.causal}
    assert causal - {"uniform", "histogram"} == set(SMALL)


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(("kind", "options"), MEMBERS)
@pytest.mark.parametrize("variant", [*AVAILABLE, "off"])
def test_logits_are_those_of_the_whole_pass(variant, kind, options, batch, monkeypatch):
    torch.manual_seed(batch)
    monkeypatch.setenv("SMALTI_KERNELS", variant)
    prior, codes = make(kind, options), torch.randint(0, K, (batch, *GRID))
    given = condition(prior, batch)
    stepper, logits = stepped(prior, codes, given)
    assert type(stepper) is (CachedStepper if variant == "off" else NativeStepper)
    torch.testing.assert_close(logits, prior.logits(codes, given), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not AVAILABLE or CHOSEN == "off", reason="no native kernels")
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(("kind", "options"), MEMBERS)
def test_the_same_noise_gives_the_same_samples(kind, options, batch, monkeypatch):
    """In PyTorch and natively, by any number of threads."""
    torch.manual_seed(batch)
    prior = make(kind, options)
    given = condition(prior, batch)
    mask, known = torch.rand(GRID) < 0.3, torch.randint(0, K, GRID)
    runs = [*RULES, {"known": known, "mask": mask}, {"known": known, "mask": mask, "guidance": 3.0}]

    def found(kernels):
        monkeypatch.setenv("SMALTI_KERNELS", kernels)
        return [prior.sample(batch, given, generator=torch.Generator().manual_seed(7), **rules) for rules in runs]

    cached, before = found("off"), torch.get_num_threads()
    assert (cached[-1][:, mask] == known[mask]).all()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for rules, native, expected in zip(runs, found(CHOSEN), cached, strict=True):
                assert torch.equal(native, expected), (threads, rules)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not AVAILABLE, reason="no native kernels")
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (7, 1), (2, 3)])
@pytest.mark.parametrize("kind", SMALL)
def test_grids_smaller_than_the_windows(kind, grid, monkeypatch):
    torch.manual_seed(0)
    windows = {} if kind == "transformer" else {"first_kernel": 7}
    prior = make(kind, SMALL[kind][0], grid=grid, num_conditions=0, **windows)
    native = prior.sample(3, generator=torch.Generator().manual_seed(7))
    monkeypatch.setenv("SMALTI_KERNELS", "off")
    assert torch.equal(native, prior.sample(3, generator=torch.Generator().manual_seed(7)))


@torch.no_grad()
@pytest.mark.skipif(not AVAILABLE, reason="no native kernels")
@pytest.mark.parametrize("kind", SMALL)
def test_weights_that_change_are_packed_anew(kind):
    torch.manual_seed(0)
    prior, codes = make(kind, SMALL[kind][0]), torch.randint(0, K, (2, *GRID))
    given = condition(prior, 2)
    stepped(prior, codes, given)
    for parameter in prior.parameters():
        parameter.mul_(0.5)
    torch.testing.assert_close(stepped(prior, codes, given)[1], prior.logits(codes, given), rtol=1e-5, atol=1e-5)
    prior.load_state_dict(make(kind, SMALL[kind][0]).state_dict(), assign=True)
    torch.testing.assert_close(stepped(prior, codes, given)[1], prior.logits(codes, given), rtol=1e-5, atol=1e-5)


class Own(CausalPrior):
    """A network that somebody else wrote, with functions that the interpreter may not have."""

    def __init__(self, function):
        super().__init__(K, GRID, Conditions())
        self.embedding, self.first = nn.Embedding(K, 8), CausalConv2d(8, 12, 3, strict=True)
        self.qkv, self.norm, self.head = nn.Linear(12, 3 * 12), nn.LayerNorm(12), nn.Linear(24, K)
        self.plain, self.shift, self.function = nn.LayerNorm(12, elementwise_affine=False), torch.randn(12), function

    def _network(self, codes, condition):
        stream = self.function(self, self.first(self.embedding(codes)))
        mixed = attend(self.qkv(self.norm(stream)), heads=2, key_width=6)
        return self.head(torch.cat([stream, mixed], dim=-1))


@torch.no_grad()
@pytest.mark.parametrize(
    ("function", "stepper"),
    [
        (lambda own, stream: F.relu(stream), NativeStepper),
        (lambda own, stream: stream + F.elu(stream), NativeStepper),
        (lambda own, stream: F.silu(stream), CachedStepper),
        (lambda own, stream: torch.tanh(stream), CachedStepper),
        (lambda own, stream: F.gelu(stream), CachedStepper),
        (lambda own, stream: own.plain(stream), CachedStepper),
        (lambda own, stream: stream + own.shift, CachedStepper),
        (lambda own, stream: 2 * stream - own.shift, CachedStepper),
    ],
)
def test_an_unknown_function_is_left_to_pytorch(function, stepper, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setenv("SMALTI_KERNELS", "auto")
    prior, codes = Own(function).eval(), torch.randint(0, K, (3, *GRID))
    found, logits = stepped(prior, codes, None)
    assert type(found) is (stepper if AVAILABLE else CachedStepper)
    torch.testing.assert_close(logits, prior.logits(codes), rtol=1e-5, atol=1e-5)


class Shifted(CausalPrior):
    """Looks back at more than the embedding of the code before."""

    def __init__(self, function):
        super().__init__(K, GRID, Conditions())
        self.embedding, self.linear, self.head = nn.Embedding(K, 12), nn.Linear(12, 12), nn.Linear(12, K)
        self.conv = CausalConv2d(12, 12, 3, strict=True)
        self.qkv, self.table = nn.Linear(12, 36), nn.Parameter(torch.randn(GRID[0] * GRID[1], 12))
        self.starts, self.function = nn.Parameter(torch.randn(2, 12)), function

    def back(self, features, start=0):
        """At the position before, in rows or in raster order as the features are."""
        if not isinstance(features, torch.Tensor):
            return previous(features, self.starts[start].expand(len(features), -1))
        flat = features.flatten(1, -2)
        return previous(flat, self.starts[start].expand(len(flat), -1)).view_as(features)

    def _network(self, codes, condition):
        return self.head(self.function(self, self.embedding(codes), by_position(codes, self.table)))


@torch.no_grad()
@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    "function",
    [
        lambda own, code, place: own.back(code),
        lambda own, code, place: own.back(own.linear(code)),
        lambda own, code, place: own.back(F.relu(own.linear(code + place))),
        lambda own, code, place: own.back(own.linear(own.back(code))),
        lambda own, code, place: own.back(own.linear(own.back(code)) + code),
        lambda own, code, place: own.back(own.back(code, 1)),
        lambda own, code, place: own.back(code) + own.back(code, 1),
        lambda own, code, place: own.back(code) + own.back(place),
        lambda own, code, place: own.back(attend(own.qkv(code + place), heads=2, key_width=6)),
        lambda own, code, place: own.conv(own.linear(code)),
        lambda own, code, place: own.conv(code) + own.back(code),
        lambda own, code, place: own.conv(own.conv(code) + own.linear(code)),
        lambda own, code, place: own.back(own.conv(own.linear(code)) + code),
        lambda own, code, place: own.conv(own.back(own.linear(code))),
    ],
)
def test_whatever_is_looked_back_at_is_that_of_the_positions_before(function, kernels, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setenv("SMALTI_KERNELS", kernels)
    prior, codes = Shifted(function).eval(), torch.randint(0, K, (3, *GRID))
    torch.testing.assert_close(stepped(prior, codes, None)[1], prior.logits(codes), rtol=1e-5, atol=1e-5)


def test_stepping_puts_the_mode_back_and_needs_no_gradient():
    prior = make("pixelcnn", SMALL["pixelcnn"][0]).train()
    logits = prior.stepper(2, torch.tensor([0, 1])).step(None)
    assert prior.training and not logits.requires_grad


@pytest.mark.skipif(not AVAILABLE, reason="no native kernels")
def test_steps_that_make_no_sense_do_not_reach_c(monkeypatch):
    monkeypatch.setenv("SMALTI_KERNELS", "auto")
    stepper = make("pixelcnn", SMALL["pixelcnn"][0], grid=(1, 2)).stepper(2, torch.tensor([0, 1]))
    stepper.step(None)
    for codes in ([0, K], [-1, 0]):
        with pytest.raises(SmaltiError, match=rf"codes must lie in \[0, {K}\); these lie in"):
            stepper.step(torch.tensor(codes))
    stepper.step(torch.tensor([0, 1]))
    with pytest.raises(SmaltiError, match="all 2 positions of the grid have been stepped"):
        stepper.step(torch.tensor([0, 1]))


@torch.no_grad()
def test_a_copy_has_its_own_matrices():
    torch.manual_seed(0)
    prior, codes = make("transformer", SMALL["transformer"][1]), torch.randint(0, K, (2, *GRID))
    given = condition(prior, 2)
    stepped(prior, codes, given)
    other = copy.deepcopy(prior)
    for parameter in prior.parameters():
        parameter.zero_()
    torch.testing.assert_close(stepped(other, codes, given)[1], other.logits(codes, given), rtol=1e-5, atol=1e-5)

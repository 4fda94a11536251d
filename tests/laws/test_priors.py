"""Laws that every prior obeys; a member that is not in MEMBERS fails the last test."""

import itertools
import math

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.priors.family import PRIORS
from smalti.priors.sampling import apply_rules, draw, keep_top_k, keep_top_p

K, GRID = 7, (4, 5)
MEMBERS = {
    "uniform": {},
    "histogram": {},
    "pixelcnn": {"channels": 12, "layers": 3},
    "pixelcnn wide": {"channels": 8, "layers": 2, "first_kernel": 5, "kernel": 5},
    "pixelcnn classes": {"channels": 12, "layers": 2, "num_conditions": 3},
    "transformer": {"width": 16, "layers": 2, "heads": 2},
    "transformer classes": {"width": 16, "layers": 2, "heads": 2, "num_conditions": 3},
}


def make(name, codebook_size=K, grid=GRID, spread=1.0):
    torch.manual_seed(1)
    prior = PRIORS[name.split()[0]](codebook_size=codebook_size, grid=grid, **MEMBERS[name])
    if name == "histogram":
        prior.fit(torch.randint(0, codebook_size, (50, *grid)) % (torch.arange(grid[1]) + 1))
    for parameter in prior.parameters():  # away from the symmetric start, so that every dependence shows
        torch.nn.init.normal_(parameter, std=spread / max(1, parameter[0].numel()) ** 0.5)
    return prior.eval()


def draw_codes(batch, codebook_size=K, grid=GRID):
    return torch.randint(0, codebook_size, (batch, *grid), generator=torch.Generator().manual_seed(3))


def condition(prior, batch):
    return torch.arange(batch) % prior.num_conditions if prior.num_conditions else None


@pytest.fixture(params=MEMBERS)
def prior(request):
    return make(request.param)


def stepped(prior, codes, given):
    """The logits of all positions from the stepper, (B, h, w, K)."""
    stepper, flat, previous, rows = prior.stepper(len(codes), given), codes.flatten(1), None, []
    for place in range(flat.shape[1]):
        rows.append(stepper.step(previous))
        previous = flat[:, place]
    return torch.stack(rows, dim=1).view(*codes.shape, -1)


def test_logits_have_the_stated_shape_and_are_finite(prior):
    logits = prior.logits(draw_codes(3), condition(prior, 3))
    assert logits.shape == (3, *GRID, K) and logits.isfinite().all()


@torch.no_grad()
def test_position_t_sees_only_codes_before_t(prior):
    codes = draw_codes(1)
    given = condition(prior, 1)
    before = prior.logits(codes, given).flatten(0, 2)
    for place in range(GRID[0] * GRID[1]):
        changed = codes.flatten().clone()
        changed[place] = (changed[place] + 1) % K
        after = prior.logits(changed.view(codes.shape), given).flatten(0, 2)
        torch.testing.assert_close(after[: place + 1], before[: place + 1], rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", ["pixelcnn", "transformer"])
def test_position_t_sees_all_codes_before_t(name):
    """No blind spot: with enough layers every earlier code changes the last position's logits."""
    prior = make(name, grid=(3, 3), spread=2.0)
    codes = draw_codes(1, grid=(3, 3))
    last = prior.logits(codes)[0, -1, -1]
    for place in range(8):
        changed = codes.flatten().clone()
        changed[place] = (changed[place] + 1) % K
        assert (prior.logits(changed.view(1, 3, 3))[0, -1, -1] - last).abs().max() > 1e-6, place


@torch.no_grad()
def test_stepper_gives_the_logits_of_the_whole_pass(prior):
    codes = draw_codes(3)
    given = condition(prior, 3)
    torch.testing.assert_close(stepped(prior, codes, given), prior.logits(codes, given), rtol=0, atol=1e-5)


@torch.no_grad()
def test_nll_is_the_sum_over_the_steps(prior):
    codes = draw_codes(3)
    given = condition(prior, 3)
    log_p = stepped(prior, codes, given).log_softmax(-1).gather(-1, codes[..., None])
    torch.testing.assert_close(prior.nll(codes, given), -log_p.flatten(1).sum(1), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_cached_sampling_draws_the_codes_of_naive_sampling(prior):
    given = condition(prior, 4)
    for rules in ({}, {"temperature": 0.7, "top_k": 4}, {"top_p": 0.8}):
        cached = prior.sample(4, given, generator=torch.Generator().manual_seed(5), **rules)
        generator, naive = torch.Generator().manual_seed(5), torch.zeros(4, *GRID, dtype=torch.int64)
        for row, column in itertools.product(*map(range, GRID)):  # the whole network for each position
            logits = prior.logits(naive, given)[:, row, column]
            settings = {"temperature": 1.0, "top_k": None, "top_p": None, **rules}
            naive[:, row, column] = draw(apply_rules(logits, **settings), generator)
        assert torch.equal(cached, naive)


@torch.no_grad()
def test_sample_frequencies_match_the_enumerated_probabilities(prior):
    """K = 3 on a 2x2 grid: chi-square over all 81 grids."""
    name = next(n for n in MEMBERS if type(make(n)) is type(prior) and make(n).num_conditions == prior.num_conditions)
    small = make(name, codebook_size=3, grid=(2, 2))
    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    given = torch.ones(81, dtype=torch.int64) if small.num_conditions else None
    probabilities = torch.exp(-small.nll(grids, given)).double()
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    count = 20_000
    one = torch.ones(count, dtype=torch.int64) if small.num_conditions else None
    drawn = small.sample(count, one, generator=torch.Generator().manual_seed(0)).flatten(1)
    seen = torch.bincount((drawn * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81)
    often = probabilities * count >= 5
    expected = torch.cat([probabilities[often] * count, (probabilities[~often].sum() * count)[None]])
    counted = torch.cat([seen[often], seen[~often].sum()[None]])
    keep = expected > 0.5
    chi_square = ((counted - expected).square() / expected)[keep].sum().item()
    freedom = int(keep.sum()) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4


@torch.no_grad()
def test_completion_keeps_what_is_known(prior):
    given, known = condition(prior, 3), draw_codes(1)[0]
    mask = torch.zeros(GRID, dtype=torch.bool)
    mask[:, :2] = True
    codes = prior.sample(3, given, known=known, mask=mask, generator=torch.Generator().manual_seed(0))
    assert (codes[:, :, :2] == known[:, :2]).all()
    everything = prior.sample(3, given, known=known, mask=torch.ones(GRID, dtype=torch.bool))
    assert (everything == known).all()


@torch.no_grad()
def test_greedy_sampling_takes_the_largest_logit(prior):
    given = condition(prior, 2)
    codes = prior.sample(2, given, temperature=0.0)
    assert torch.equal(codes, prior.logits(codes, given).argmax(-1)) or type(prior).__name__ in ("Uniform", "Histogram")
    assert torch.equal(codes, prior.sample(2, given, temperature=0.0))


def test_sampling_puts_the_mode_back(prior):
    prior.train()
    prior.sample(1, condition(prior, 1))
    assert prior.training


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in ("uniform", "histogram")])
def test_gradient_reaches_every_parameter(name):
    prior = make(name)
    prior.train().nll(draw_codes(6), condition(prior, 6)).mean().backward()
    assert [name for name, parameter in prior.named_parameters() if parameter.grad is None] == []


def test_bad_input_is_a_one_line_error(prior):
    given = condition(prior, 1)
    wrong = torch.zeros(1, dtype=torch.int64) if given is None else None
    cases = [
        (lambda: prior.logits(torch.full((1, *GRID), K), given), rf"\[0, {K}\)"),
        (lambda: prior.logits(torch.zeros(1, 3, 3, dtype=torch.int64), given), r"\(B, h=4, w=5\), not \(1, 3, 3\)"),
        (lambda: prior.logits(draw_codes(1), wrong), "this prior takes"),
        (lambda: prior.sample(1, given, temperature=-1.0), "not -1.0"),
        (lambda: prior.sample(1, given, top_p=0.0), r"\(0, 1\], not 0.0"),
        (lambda: prior.sample(1, given, top_p=1.5), "not 1.5"),
        (lambda: prior.sample(1, given, top_k=0), "at least 1, not 0"),
        (lambda: prior.sample(1, given, known=draw_codes(1)[0]), "both known codes and a mask"),
        (
            lambda: prior.sample(1, given, known=draw_codes(1)[0], mask=torch.ones(2, 2, dtype=torch.bool)),
            "mask must be",
        ),
    ]
    for call, message in cases:
        with pytest.raises(SmaltiError, match=message):
            call()


def test_conditions_change_the_distribution_and_are_checked():
    for name in ("pixelcnn classes", "transformer classes"):
        prior, codes = make(name), draw_codes(1)
        nlls = [prior.nll(codes, torch.tensor([c])).item() for c in range(3)]
        assert len(set(nlls)) == 3
        with pytest.raises(SmaltiError, match=r"\[0, 3\); these lie in \[3, 3\]"):
            prior.nll(codes, torch.tensor([3]))


# ------------------------------------------------------------------ members with a closed form


def test_uniform_costs_ln_k_a_code():
    nll = make("uniform").nll(draw_codes(2))
    torch.testing.assert_close(nll, torch.full((2,), 20 * math.log(K)))


def test_histogram_is_the_smoothed_count():
    prior = PRIORS["histogram"](codebook_size=3, grid=(1, 2), smoothing=2.0)
    prior.fit(torch.tensor([[[0, 1]], [[0, 2]], [[0, 1]], [[1, 1]]]))
    overall = torch.tensor([3 + 1 / 3, 4 + 1 / 3, 1 + 1 / 3]) / 9
    expected = torch.stack([torch.tensor([3.0, 1.0, 0.0]), torch.tensor([0.0, 3.0, 1.0])]) + 2 * overall
    torch.testing.assert_close(prior.log_share.exp(), expected / 6)


# ------------------------------------------------------------------ sampling rules


def test_top_k_keeps_the_largest_and_breaks_ties_by_code():
    logits = torch.tensor([[1.0, 3.0, 2.0, 3.0]])
    assert keep_top_k(logits, 2).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_k(torch.zeros(1, 4), 1).isfinite().tolist() == [[True, False, False, False]]
    assert torch.equal(keep_top_k(logits, 9), logits)


def test_top_p_keeps_the_smallest_sufficient_set():
    logits = torch.tensor([[0.1, 0.5, 0.4]]).log()
    assert keep_top_p(logits, 0.49).isfinite().tolist() == [[False, True, False]]
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [[False, True, True]]
    assert keep_top_p(logits, 1e-9).isfinite().tolist() == [[False, True, False]]


def test_draws_follow_the_probabilities():
    logits = torch.tensor([[0.2, 0.3, 0.5]]).log().expand(50_000, -1)
    share = torch.bincount(draw(logits, torch.Generator().manual_seed(0)), minlength=3) / 50_000
    assert (share - torch.tensor([0.2, 0.3, 0.5])).abs().max() < 0.01


def test_every_member_is_under_the_laws():
    assert {name.split()[0] for name in MEMBERS} == set(PRIORS)

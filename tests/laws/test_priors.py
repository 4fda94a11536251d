"""Laws that every prior obeys; a member that is not in MEMBERS fails the last test."""

import itertools
import math

import pytest
import torch

from conftest import own_members
from smalti.errors import SmaltiError
from smalti.priors.family import PRIORS
from smalti.priors.sampling import Rules, keep_top_k, keep_top_p, sample_codes

K, GRID = 7, (4, 5)
MEMBERS = {
    "uniform": {},
    "histogram": {},
    "masked_pixelcnn": {"code_dim": 3, "channels": 12, "layers": 3},
    "masked_pixelcnn classes": {"code_dim": 3, "channels": 8, "layers": 2, "first_kernel": 5, "num_conditions": 3},
    "pixelcnn": {"channels": 12, "layers": 3},
    "pixelcnn wide": {"channels": 8, "layers": 2, "first_kernel": 5, "kernel": 5},
    "pixelcnn classes": {"channels": 12, "layers": 2, "num_conditions": 3},
    "transformer": {"width": 16, "layers": 2, "heads": 2},
    "transformer classes": {"width": 16, "layers": 2, "heads": 2, "num_conditions": 3},
    "transformer rank": {"width": 16, "layers": 2, "heads": 2, "code_rank": 5},
    "maskgit classes rank": {"width": 16, "layers": 2, "heads": 2, "code_rank": 5, "num_conditions": 3},
    "pixelsnail": {"channels": 8, "blocks": 2, "residuals": 1, "heads": 2, "key_width": 4},
    "pixelsnail classes": {"channels": 8, "blocks": 1, "heads": 1, "key_width": 4, "num_conditions": 3},
    "maskgit": {"width": 16, "layers": 2, "heads": 2},
    "maskgit classes": {"width": 16, "layers": 1, "heads": 2, "num_conditions": 3},
    "maskgit text": {"width": 16, "layers": 1, "heads": 2, "text_vocabulary": 5, "text_length": 4},
    "transformer text": {"width": 16, "layers": 2, "heads": 2, "text_vocabulary": 5, "text_length": 4},
}
MEMBERS |= own_members(PRIORS)


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
    """Classes, or texts of several lengths; one image has none."""
    count, length = prior.conditions.count, prior.conditions.length
    if not count:
        return None
    if length is None:
        return torch.arange(batch) % (count + 1) - 1
    tokens = torch.randint(0, count, (batch, length), generator=torch.Generator().manual_seed(4))
    return torch.where(torch.arange(length) < torch.arange(batch)[:, None] % (length + 1), tokens, -1)


CAUSAL = [name for name in MEMBERS if PRIORS[name.split()[0]].causal]
MASKED = [name for name in MEMBERS if name not in CAUSAL]


@pytest.fixture(params=CAUSAL)
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
            naive[:, row, column] = sample_codes(Rules(**rules)(logits), generator)
        assert torch.equal(cached, naive)


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_sample_frequencies_match_the_enumerated_probabilities(name):
    """K = 3 on a 2x2 grid: chi-square over all 81 grids."""
    small = make(name, codebook_size=3, grid=(2, 2))
    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    given = condition(small, 3)  # of these the last
    probabilities = torch.exp(-small.nll(grids, None if given is None else given[-1:].expand(81, *given.shape[1:])))
    one = None if given is None else given[-1:].expand(COUNT, *given.shape[1:])
    check_frequencies(small.sample(COUNT, one, generator=torch.Generator().manual_seed(0)), probabilities.double())


COUNT = 20_000


def check_frequencies(drawn, probabilities):
    """Chi-square of draws (COUNT, 2, 2) of K = 3 against the probabilities of all 81 grids."""
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    seen = torch.bincount((drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1), minlength=81)
    often = probabilities * COUNT >= 5
    expected = torch.cat([probabilities[often] * COUNT, (probabilities[~often].sum() * COUNT)[None]])
    counted = torch.cat([seen[often], seen[~often].sum()[None]])
    keep = expected > 0.5
    chi_square = ((counted - expected).square() / expected)[keep].sum().item()
    freedom = int(keep.sum()) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CAUSAL if "classes" in name or "text" in name])
def test_cached_guidance_is_guidance_of_whole_passes(name):
    """Both halves of the cache must see the codes that were drawn, and the empty condition must be the empty one."""
    prior, guidance = make(name), 2.5
    given = condition(prior, 4)
    cached = prior.sample(4, given, guidance=guidance, generator=torch.Generator().manual_seed(5))
    generator, naive = torch.Generator().manual_seed(5), torch.zeros(4, *GRID, dtype=torch.int64)
    for row, column in itertools.product(*map(range, GRID)):
        with_it = prior.logits(naive, given)[:, row, column].log_softmax(-1)
        without = prior.logits(naive, torch.full_like(given, -1))[:, row, column].log_softmax(-1)
        naive[:, row, column] = sample_codes(without + guidance * (with_it - without), generator)
    assert torch.equal(cached, naive)
    none = prior.sample(4, given, guidance=0.0, generator=torch.Generator().manual_seed(6))
    empty = prior.sample(4, torch.full_like(given, -1), generator=torch.Generator().manual_seed(6))
    assert torch.equal(none, empty)


@torch.no_grad()
@pytest.mark.parametrize("name", MEMBERS)
def test_completion_keeps_what_is_known(name):
    prior = make(name)
    given, known = condition(prior, 3), draw_codes(1)[0]
    mask = torch.zeros(GRID, dtype=torch.bool)
    mask[:, :2] = True
    codes = prior.sample(3, given, known=known, mask=mask, generator=torch.Generator().manual_seed(0))
    assert (codes[:, :, :2] == known[:, :2]).all()
    everything = prior.sample(3, given, known=known, mask=torch.ones(GRID, dtype=torch.bool))
    assert (everything == known).all()


@torch.no_grad()
def test_in_raster_order_what_is_known_behind_decides_nothing_and_takes_no_time(prior):
    given, heard = condition(prior, 3), []
    mask = torch.ones(GRID, dtype=torch.bool)
    mask[0] = False
    options = {"known": draw_codes(3), "mask": mask, "progress": lambda done, of: heard.append(of)}
    first, free = (
        prior.sample(3, given, generator=torch.Generator().manual_seed(5), **own)[:, 0] for own in (options, {})
    )
    assert torch.equal(first, free) and len(heard) in (1, GRID[1])


@torch.no_grad()
def test_greedy_sampling_takes_the_largest_logit(prior):
    given = condition(prior, 2)
    codes = prior.sample(2, given, temperature=0.0)
    assert torch.equal(codes, prior.logits(codes, given).argmax(-1)) or type(prior).__name__ in ("Uniform", "Histogram")
    assert torch.equal(codes, prior.sample(2, given, temperature=0.0))


@pytest.mark.parametrize("name", MEMBERS)
def test_sampling_puts_the_mode_back(name):
    prior = make(name)
    prior.train()
    prior.sample(1, condition(prior, 1))
    assert prior.training


@pytest.mark.parametrize("name", [name for name in MEMBERS if name not in ("uniform", "histogram")])
def test_gradient_reaches_every_parameter(name):
    prior = make(name)
    prior.train().loss(draw_codes(6), condition(prior, 6)).total.backward()
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
    for name in (name for name in MEMBERS if "classes" in name):
        prior, codes = make(name), draw_codes(1)
        nlls = [prior.nll(codes, torch.tensor([c])).item() for c in range(3)]
        assert len(set(nlls)) == 3
        with pytest.raises(SmaltiError, match=r"none; these lie in \[3, 3\]"):
            prior.nll(codes, torch.tensor([3]))


def test_a_prior_without_a_condition_takes_no_guidance(prior):
    if not prior.conditions.count:
        with pytest.raises(SmaltiError, match=r"guidance 2.0 needs a conditional prior"):
            prior.sample(1, guidance=2.0)
    with pytest.raises(SmaltiError, match="must not be negative"):
        prior.sample(1, condition(prior, 1), guidance=-1.0)
    with pytest.raises(SmaltiError, match="steps=3 is for a masked prior"):
        prior.sample(1, condition(prior, 1), steps=3)


# ------------------------------------------------------------------ the masked prior


@torch.no_grad()
@pytest.mark.parametrize("name", MASKED)
def test_a_masked_prior_sees_what_is_known_wherever_it_is_and_nothing_else(name):
    prior, codes = make(name), draw_codes(1)
    given, known = condition(prior, 1), torch.rand(1, *GRID, generator=torch.Generator().manual_seed(0)) < 0.5
    before = prior.logits(codes, known, given)
    for row, column in itertools.product(*map(range, GRID)):
        changed = codes.clone()
        changed[0, row, column] = (changed[0, row, column] + 1) % K
        differences = (prior.logits(changed, known, given) - before).abs().amax(-1)
        assert (differences > 1e-7).all() if known[0, row, column] else (differences == 0).all()


def enumerated(prior, rounds, random_order):
    """The probability of all 81 grids under MaskGIT's sampling, by going through every draw of every round."""
    states = {(None,) * 4: 1.0}
    for step in range(1, rounds + 1):
        num_hidden = min(int(4 * math.cos(math.pi / 2 * step / rounds) + 1e-6), 4 - step)
        after = {}
        for state, probability in states.items():
            codes = torch.tensor([code or 0 for code in state]).view(1, 2, 2)
            known = torch.tensor([code is not None for code in state]).view(1, 2, 2)
            log_p = prior.logits(codes, known).log_softmax(-1).view(4, 3).double()
            hidden = [place for place in range(4) if state[place] is None]
            for draws in itertools.product(range(3), repeat=len(hidden)):
                scores = {place: log_p[place, code].item() for place, code in zip(hidden, draws, strict=True)}
                p = probability * math.exp(sum(scores.values()))
                least = tuple(sorted(hidden, key=scores.__getitem__)[:num_hidden])
                choices = list(itertools.combinations(hidden, num_hidden)) if random_order else [least]
                full = [dict(zip(hidden, draws, strict=True)).get(place, state[place]) for place in range(4)]
                for again in choices:
                    kept = tuple(None if place in again else full[place] for place in range(4))
                    after[kept] = after.get(kept, 0.0) + p / len(choices)
        states = after
    return torch.tensor([states.get(grid, 0.0) for grid in itertools.product(range(3), repeat=4)], dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("order_temperature", [0.0, math.inf])
def test_maskgit_draws_what_its_rule_says(rounds, order_temperature):
    small = make("maskgit", codebook_size=3, grid=(2, 2), spread=2.0)
    small.order_temperature = order_temperature
    drawn = small.sample(COUNT, steps=rounds, generator=torch.Generator().manual_seed(0))
    check_frequencies(drawn, enumerated(small, rounds, random_order=math.isinf(order_temperature)))


@torch.no_grad()
def test_maskgits_nll_bounds_its_one_by_one_sampling():
    """With T = 4 every number of hidden codes has its draw, so that only which are hidden is left to chance."""
    small = make("maskgit", codebook_size=3, grid=(2, 2), spread=2.0)
    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).view(81, 2, 2)
    bound = torch.zeros(81, dtype=torch.float64)  # the mean over orders, by enumeration
    for order in itertools.permutations(range(4)):
        for count in range(4):
            known = torch.tensor([place in order[:count] for place in range(4)]).view(1, 2, 2).expand(81, -1, -1)
            log_p = small.logits(grids, known).log_softmax(-1).view(81, 4, 3)[:, order[count]]
            bound -= log_p.gather(-1, grids.flatten(1)[:, order[count], None])[:, 0].double() / 24
    exact = -enumerated(small, 4, random_order=True).log()
    assert (bound > exact).all()
    assert (small.nll(grids).double() / bound).mean().item() == pytest.approx(1.0, abs=0.1)
    assert torch.equal(small.nll(grids), small.nll(grids))


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in MASKED if name != "maskgit"])
def test_guidance_of_a_masked_prior(name):
    prior = make(name, spread=2.0)
    given = condition(prior, 3)
    none = prior.sample(3, given, guidance=0.0, generator=torch.Generator().manual_seed(6))
    empty = prior.sample(3, torch.full_like(given, -1), generator=torch.Generator().manual_seed(6))
    assert torch.equal(none, empty)
    strong = prior.sample(3, given, guidance=9.0, generator=torch.Generator().manual_seed(6))
    assert not torch.equal(none, strong)


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
    share = torch.bincount(sample_codes(logits, torch.Generator().manual_seed(0)), minlength=3) / 50_000
    assert (share - torch.tensor([0.2, 0.3, 0.5])).abs().max() < 0.01


def test_every_member_is_under_the_laws():
    assert {name.split()[0] for name in MEMBERS} == set(PRIORS)


@pytest.mark.parametrize("name", MEMBERS)
def test_sampling_tells_how_far_it_is_and_ends_where_it_is_told(name):
    class Enough(Exception):
        pass

    def told(done, of):
        heard.append((done, of))
        if len(heard) == enough:
            raise Enough

    prior, heard, enough = make(name), [], 0
    quiet, told_of = (
        prior.sample(2, condition(prior, 2), generator=torch.Generator().manual_seed(0), progress=progress)
        for progress in (None, told)
    )
    assert torch.equal(quiet, told_of)
    assert heard == [(done + 1, len(heard)) for done in range(len(heard))] and len(heard) > 2
    heard, enough = [], 2
    with pytest.raises(Enough):
        prior.sample(2, condition(prior, 2), progress=told)
    assert len(heard) == 2


@torch.no_grad()
def test_the_nats_of_codes_are_those_of_their_logits_and_sum_to_those_of_the_image(prior):
    codes, given = draw_codes(3), condition(prior, 3)
    nats = prior.nll_of_codes(codes, given)
    log_p = prior.logits(codes, given).log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(nats, -log_p)
    torch.testing.assert_close(nats.flatten(1).sum(1), prior.nll(codes, given))


def test_a_prior_without_an_order_has_no_nats_of_codes():
    with pytest.raises(SmaltiError, match="MaskGIT has no order of positions"):
        make("maskgit").nll_of_codes(draw_codes(1))

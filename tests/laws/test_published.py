"""Quantizers give the codes that their papers' equations give: 100,000 of each, against numpy.

The references of vectors compute in float64. Where their two best codes are closer than float32 can tell, either is
right; so few are that close that they are counted here.
"""

import numpy as np
import pytest
import torch

import reference
from smalti.models.bottlenecks import FSQ, BinaryQuantizer, Categorical, ProductQuantizer, ResidualQuantizer
from smalti.models.bottlenecks import VectorQuantizer as VQ

N, K, D, Q = 100_000, 48, 6, 2
NEAR, MOST = 2e-5, 50  # of costs around 5; at most so many are nearer than that
COMPARE = ("distance", "direction", "product")
LEVELS = [(8, 8, 8, 5, 5, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (4, 3), (2, 3)]
VARIANTS = ("paper", "listing", "symmetric")
HALF_WAY = 1e-6  # from a half, of numbers up to 4: four units in the last place of float32


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def encoded(bottleneck, features):
    """The codes (N,) or (N, q) of features (N, D), and the latents (N, D)."""
    out = bottleneck.eval()(features[None], channel_axis=-1)
    codes = out.codes[0].T if bottleneck.num_codebooks > 1 else out.codes[0]
    assert torch.equal(bottleneck.encode(features[None], channel_axis=-1), out.codes)
    return codes.numpy(), out.latents[0].numpy()


def assert_the_same(ours, theirs, margins):
    near = margins < NEAR
    assert near.sum() <= MOST
    assert (ours[~near] == theirs[~near]).all()


@pytest.mark.parametrize("compare", COMPARE)
def test_vq_takes_the_nearest(compare):
    features, vectors = normal(N, D), normal(K, D, seed=1)
    quantizer = VQ(codebook_size=K, code_dim=D, compare=compare)
    quantizer.load_vectors(vectors)
    codes, latents = encoded(quantizer, features)
    theirs, margins = reference.chosen_code(features.numpy(), vectors.numpy(), compare)
    assert_the_same(codes, theirs, margins)
    lengths = vectors.norm(dim=1, keepdim=True) if compare == "direction" else 1
    np.testing.assert_allclose(latents, (vectors / lengths).numpy()[codes], rtol=1e-6)


@pytest.mark.parametrize("compare", COMPARE)
@pytest.mark.parametrize(
    ("kind", "theirs", "dim"),
    [(ResidualQuantizer, reference.residual_codes, D), (ProductQuantizer, reference.product_codes, D // Q)],
)
def test_several_codebooks_take_the_nearest_of_each(kind, theirs, dim, compare):
    features, vectors = normal(N, D), normal(Q, K, dim, seed=1)
    quantizer = kind(num_codebooks=Q, codebook_size=K, code_dim=D, quantizer={"compare": compare})
    quantizer.load_vectors(vectors)
    assert_the_same(encoded(quantizer, features)[0], *theirs(features.numpy(), vectors.numpy(), compare))


def test_directions_are_those_of_cosines():
    """The nearest on the sphere is that of the largest cosine, and no length has a say."""
    features, vectors = normal(1000, D), normal(K, D, seed=1)
    quantizer = VQ(codebook_size=K, code_dim=D, compare="direction")
    quantizer.load_vectors(vectors)
    codes, _ = encoded(quantizer, features)
    cosines = torch.cosine_similarity(features[:, None].double(), vectors.double(), dim=2)
    assert (cosines.argmax(1).numpy() == codes).all()
    quantizer.load_vectors(vectors * torch.logspace(-3, 3, K)[:, None])
    assert (encoded(quantizer, features * torch.logspace(-3, 3, 1000)[:, None])[0] == codes).all()


def test_by_product_the_longest_win_and_what_lies_within_is_never_chosen():
    quantizer = VQ(codebook_size=4, code_dim=2, compare="product")
    quantizer.load_vectors(torch.tensor([[0.1, 0.1], [2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]]))
    assert encoded(quantizer, normal(1000, 2))[0].min() == 1
    assert encoded(quantizer, torch.tensor([[0.1, 0.1]]))[0] == 1


@pytest.mark.parametrize("spherical", [False, True])
def test_the_code_of_signs_has_the_first_channel_as_its_lowest_bit(spherical):
    features = normal(N, 18)
    if not spherical:
        features[:100] = torch.tensor([0.0, -0.0]).repeat(9)  # no sign is a 0
    quantizer = BinaryQuantizer(bits=18, spherical=spherical)
    codes, latents = encoded(quantizer, features)
    assert (codes == reference.sign_codes(features.numpy())).all()
    signs = np.where(features.numpy() > 0, 1, -1)
    np.testing.assert_allclose(latents, signs / 18**0.5 if spherical else signs, rtol=1e-6)
    assert encoded(quantizer, torch.eye(18) - 0.5)[0].tolist() == [2**place for place in range(18)]


@pytest.mark.parametrize("logits", ["distance", "convolution", "features"])
def test_the_code_of_logits_is_their_arg_max(logits):
    features, weights, bias = normal(N, D), normal(K, D, seed=1), normal(K, seed=2)
    by_features = {"features": {"code_dim": 0, "codebook_size": D}, "convolution": {"in_channels": D}}
    quantizer = Categorical(**{"codebook_size": K, "code_dim": D, "logits": logits, **by_features.get(logits, {})})
    if logits == "distance":
        quantizer.load_vectors(weights)
        theirs, margins = reference.chosen_code(features.numpy(), weights.numpy(), "distance")
    elif logits == "convolution":
        quantizer.to_logits.load_state_dict({"weight": weights[:, :, None, None], "bias": bias})
        with_one = np.concatenate([features.numpy(), np.ones((N, 1))], axis=1)
        together = np.concatenate([weights.numpy(), bias.numpy()[:, None]], axis=1)
        theirs, margins = reference.chosen_code(with_one, together, "product")
    else:
        theirs, margins = features.numpy().argmax(1), np.full(N, np.inf)
    assert_the_same(encoded(quantizer, features)[0], theirs, margins)


def apart(rounded):
    """Whether no channel of (N, D) is half-way between two levels, as far as float32 can tell."""
    return (np.abs(rounded - np.floor(rounded) - 0.5) > HALF_WAY).all(1)


@pytest.mark.parametrize("scale", [1, 4])
@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_fsq_is_that_of_the_equations(variant, levels, scale):
    """In float32, with the same order of operations."""
    features = scale * normal(N, len(levels))
    codes, latents = encoded(FSQ(levels=levels, variant=variant), features)
    rounded, values, theirs = reference.fsq(features.numpy(), levels, variant)
    clear = apart(rounded)
    assert (~clear).sum() <= 5
    assert (codes[clear] == theirs[clear]).all()
    np.testing.assert_allclose(latents[clear], values[clear], rtol=1e-6)
    _, _, exact = reference.fsq(features.numpy().astype(np.float64), levels, variant)
    assert (codes != exact).sum() <= 10


@pytest.mark.parametrize("size", sorted({size for levels in LEVELS for size in levels}))
@pytest.mark.parametrize("variant", VARIANTS)
def test_fsq_at_the_borders_of_its_levels(variant, size):
    """Borders as float32 has them, and 16 neighbours on either side: the code is one of the two that meet there."""
    line = np.linspace(-6, 6, 120_001)[:, None]
    rounded, _, digits = reference.fsq(line, (size,), variant)
    borders = np.interp(np.arange(size - 1) - size // 2 + 0.5, rounded[:, 0], line[:, 0])
    assert digits[0] == 0 and digits[-1] == size - 1
    for digit, border in enumerate(borders):
        around = [np.float32(border)]
        for _ in range(16):
            around = [np.nextafter(around[0], np.float32(-9)), *around, np.nextafter(around[-1], np.float32(9))]
        values = np.array([border - 1e-3, *around, border + 1e-3], dtype=np.float32)[:, None]
        codes, _ = encoded(FSQ(levels=(size,), variant=variant), torch.from_numpy(values))
        assert set(codes) == {digit, digit + 1} and codes[0] == digit and codes[-1] == digit + 1
        rounded = reference.fsq(values, (size,), variant)[0][:, 0]
        assert (np.abs(rounded - (codes - size // 2)) <= 0.5 + HALF_WAY).all()


def test_the_middle_level_of_the_paper_is_0():
    for variant in ("paper", "listing"):
        quantizer = FSQ(levels=(8, 5), variant=variant)
        middle = quantizer.encode(torch.zeros(1, 2, 1, 1))
        assert middle.item() == 4 + 8 * 2 and quantizer.decode(middle).flatten().tolist() == [0, 0]
    assert FSQ(levels=(8,), variant="symmetric").decode(torch.tensor([[[3, 4]]])).flatten().tolist() == [
        pytest.approx(-1 / 7), pytest.approx(1 / 7)
    ]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_example_of_the_authors(variant):
    """Levels [3, 5, 4] of [0.25, 0.6, -7]: 0, 1/2, -1, the code 1 + 3 * 3 + 15 * 0."""
    features = torch.tensor([0.25, 0.6, -7]).view(1, 3, 1, 1)
    out = FSQ(levels=(3, 5, 4), variant=variant)(features)
    assert out.latents.flatten().tolist() == [0, 0.5, -1] and out.codes.item() == 10


@pytest.mark.parametrize("variant", VARIANTS)
def test_many_levels_stay_within_theirs(variant):
    """Tanh stretched by a thousandth goes beyond the last of more than 1,000 levels."""
    quantizer = FSQ(levels=(5001, 3000), variant=variant).eval()
    features = torch.tensor([[-20.0, 20.0, 3.0], [20.0, -20.0, -1.0]]).view(1, 2, 1, 3)
    out = quantizer(features)
    assert torch.equal(quantizer.decode(out.codes), out.latents) and out.latents.abs().max() <= 1

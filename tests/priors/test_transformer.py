"""Text and codes in one stream: what each position predicts, and the two parts of the loss."""

import math

import pytest
import torch

from smalti.errors import SmaltiError
from smalti.priors.family import MaskGIT, Transformer

TEXTS = torch.tensor([[1, 2, -1, -1], [-1, -1, -1, -1], [0, 1, 2, 3]])
ENDS = 5


@pytest.fixture
def prior():
    torch.manual_seed(0)
    prior = Transformer(codebook_size=7, grid=(2, 3), width=16, layers=2, heads=2, text_vocabulary=5, text_length=4)
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return prior.eval()


@torch.no_grad()
def test_the_loss_is_an_eighth_text_and_seven_eighths_codes(prior):
    codes = torch.randint(0, 7, (3, 2, 3))
    log_p = prior.text_head(prior._stream(codes, TEXTS)[:, :4]).log_softmax(-1)
    targets = [(0, 0, 1), (0, 1, 2), (0, 2, ENDS), *((2, place, place) for place in range(4))]  # a full text has no end
    text = -sum(log_p[row, place, token].item() for row, place, token in targets) / len(targets)
    per_code = prior.nll(codes, TEXTS).mean().item() / 6
    loss = prior.loss(codes, TEXTS)
    assert loss.total.item() == pytest.approx(text / 8 + per_code * 7 / 8, rel=1e-5)
    assert loss.terms["text_bits_per_token"].item() == pytest.approx(text / math.log(2), rel=1e-5)
    assert loss.terms["bits_per_code"].item() == pytest.approx(per_code / math.log(2), rel=1e-5)


@torch.no_grad()
def test_a_batch_without_any_text_has_the_loss_of_its_codes(prior):
    codes, empty = torch.randint(0, 7, (2, 2, 3)), torch.full((2, 4), -1)
    loss = prior.loss(codes, empty)
    assert loss.terms["text_bits_per_token"].item() == 0
    assert loss.total.item() == pytest.approx(prior.nll(codes, empty).mean().item() / 6 * 7 / 8, rel=1e-5)


@torch.no_grad()
def test_a_text_token_is_predicted_from_those_before_it_and_a_code_from_the_whole_text(prior):
    codes = torch.randint(0, 7, (1, 2, 3))
    before = prior._stream(codes, TEXTS[2:])
    changed = TEXTS[2:].clone()
    changed[0, 2] = 4
    differs = (prior._stream(codes, changed) - before).abs().amax(-1)[0] > 1e-6
    assert differs.tolist() == [False] * 3 + [True] * (1 + 6)


def test_classes_and_text_exclude_each_other():
    with pytest.raises(SmaltiError, match="classes or text, not both"):
        Transformer(codebook_size=7, grid=(2, 3), num_conditions=2, text_vocabulary=5, text_length=4)
    with pytest.raises(SmaltiError, match="a multiple of heads, not 10 and 4"):
        Transformer(codebook_size=7, grid=(2, 3), width=10, heads=4)


@pytest.mark.parametrize("kind", [Transformer, MaskGIT])
def test_a_factorised_table_knows_from_the_start_which_codes_look_alike(kind):
    vectors = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    vectors[4] = vectors[2] + 1e-3
    prior = kind(codebook_size=7, grid=(2, 3), width=16, layers=1, heads=2, code_rank=5)
    before = prior.codes.weight.clone()
    prior.begin_with(vectors)
    table = prior.codes.weight.detach()
    assert torch.equal(table[:7, 3:], before[:7, 3:]) and torch.equal(table[7:], before[7:])
    assert torch.allclose(table[:7, :3].T @ table[:7, :3] / 7, torch.eye(3), atol=1e-5)  # white
    distances = torch.cdist(table[:7, :3], table[:7, :3]) + 9 * torch.eye(7)
    assert distances.argmin().item() in (2 * 7 + 4, 4 * 7 + 2)
    for plain in (prior.head.weight, kind(codebook_size=7, grid=(2, 3), width=16, heads=2).codes.weight):
        assert plain.std() < 0.2  # and a prior with tables of its own takes nothing
    wide = kind(codebook_size=7, grid=(2, 3), width=16, layers=1, heads=2, code_rank=2)
    wide.begin_with(torch.randn(7, 6))
    assert torch.allclose(wide.codes.weight[:7].T @ wide.codes.weight[:7] / 7, torch.eye(2), atol=1e-5)


@pytest.mark.parametrize("kind", [Transformer, MaskGIT])
def test_saved_weights_bear_the_names_of_an_embedding_and_a_head(kind):
    names = {"codes.weight", "head.weight", "head.bias"}
    for rank, more in ((0, set()), (2, {"codes.into.weight", "codes.into.bias", "codes.bias"})):
        prior = kind(codebook_size=7, grid=(2, 3), width=16, layers=1, heads=2, code_rank=rank)
        assert {name for name in prior.state_dict() if name.startswith(("codes", "head"))} == names | more


def test_the_first_guess_is_close_to_uniform():
    """A factorised table begins as a plain head does: with logits below one in size."""
    torch.manual_seed(0)
    prior = Transformer(codebook_size=256, grid=(4, 4), width=64, layers=2, heads=2, code_rank=32).eval()
    prior.begin_with(torch.randn(256, 8))
    bits = prior.loss(torch.randint(0, 256, (8, 4, 4)), None).terms["bits_per_code"].item()
    assert 7.9 < bits < 8.5

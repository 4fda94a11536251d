"""Laws of what a file may say to a constructor: every keyword of every member of every family."""

import math
import typing

import pytest
import torch

from smalti.configs import _hints_of, construct, fit, from_dict
from smalti.errors import LONGEST, SmaltiError
from smalti.images.preprocessing import Corruption, Preprocessing
from smalti.models.bottlenecks import BOTTLENECKS
from smalti.models.likelihoods import LIKELIHOODS
from smalti.models.networks import NETWORKS
from smalti.outlines import Valueless
from smalti.priors.config import PixelLevels, TextConfig
from smalti.priors.family import PRIORS
from smalti.ranges import Positive, Range, Share
from smalti.schedules import Schedule

NEEDED = {  # a good value for whatever a constructor must be told
    "codebook_size": 16, "code_dim": 4, "num_codebooks": 2, "channels": 3, "levels": [4, 3], "bits": 5, "image_size": 8,
    "grid": [2, 3], "languages": ["en"], "vocabulary": 300, "length": 8,
}  # fmt: skip
FAMILIES = {family.what: family for family in (BOTTLENECKS, NETWORKS, LIKELIHOODS, PRIORS)}
RECORDS = [Preprocessing, Corruption, PixelLevels, TextConfig, Schedule]
MEMBERS = [(what, kind) for what, family in FAMILIES.items() for kind in family if kind in family.data]
EVIL = {
    "int": ["x", 1.5, True, [], {}, math.nan, -1, 2**63, 10**400],
    "float": ["x", False, [1.0], {}, math.nan, -math.inf],
    "str": [1, True, [], {}, "y" * 1_000_000],
    "bool": [0, 1, "true", None, []],
    "other": [-1.5, True, {"": 1}, [[]], ["x", None], [2**63] * 1000, {"a": {"b": []}}],
}


def kind_of(hint) -> str:
    if typing.get_origin(hint) is typing.Annotated:
        return kind_of(typing.get_args(hint)[0])
    return getattr(hint, "__name__", "") if hint in (int, float, str, bool) else "other"


def cases():
    for what, kind in MEMBERS:
        yield what, FAMILIES[what][kind]
    for record in RECORDS:
        yield record.__name__, record


def good_options(member):
    """What it must be told."""
    good = {key: NEEDED[key] for key in _hints_of(member) if key in NEEDED}
    return good | ({"levels": 16} if member is PixelLevels else {})


@pytest.mark.parametrize(
    ("what", "member"), [pytest.param(*case, id=f"{case[0]} {case[1].__name__}") for case in cases()]
)
def test_a_wrong_value_is_one_line_that_names_the_key(what, member):
    hints = {key: hint for key, hint in _hints_of(member).items() if key != "return"}
    good = good_options(member)
    with torch.device("meta"), Valueless():
        construct(member, good, what)
        for key, hint in hints.items():
            for value in EVIL[kind_of(hint)]:
                with pytest.raises(SmaltiError) as caught:
                    construct(member, {**good, key: value}, what)
                text = str(caught.value)
                assert key in text and "\n" not in text and len(text) <= LONGEST, (key, value, text)


@pytest.mark.parametrize("what", FAMILIES)
@pytest.mark.parametrize("spec", [{}, {"kind": []}, {"kind": None}, {"kind": "y" * 1_000_000}, {"kind": {}, "x": 1}])
def test_a_kind_is_the_name_of_one(what, spec):
    with pytest.raises(SmaltiError) as caught:
        FAMILIES[what].build(spec)
    assert "kind" in str(caught.value) and len(str(caught.value)) <= LONGEST


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (int, [0, -5, 10**400], [1.0, True, "1", None]),
        (float, [0, 1.5, -2], [math.nan, math.inf, 10**400, True, "1"]),
        (typing.Annotated[float, Range(0, math.inf)], [math.inf, 0], [-1, math.nan]),
        (Share, [0, 0.999], [1, -0.1, None]),
        (Positive, [1e-300, 5], [0, -1, math.inf]),
        (int | None, [None, 3], ["x", 1.5]),
        (typing.Literal["a", 1], ["a", 1], [True, 1.0, [], "b"]),
        (float | typing.Literal["learned"], [0.5, "learned"], ["x", None, []]),
        (tuple[int, ...], [(1, 2), ()], [5, "12", (1, "x"), {}]),
        (tuple[int, int], [(1, 2)], [(1,), (1, 2, 3), ()]),
        (dict[str, int], [{"a": 1}], [[], {"a": "x"}, None]),
        (torch.Tensor, [object, 5], []),  # what JSON has no values for is not asked about
    ],
)
def test_values_fit_annotations(hint, good, bad):
    for value in good:
        assert fit(hint, value, "key") == value
    for value in bad:
        with pytest.raises(SmaltiError, match=r"^key"):
            fit(hint, value, "key")


def test_lists_become_tuples_and_objects_become_records():
    assert fit(tuple[int, ...], [1, 2], "") == (1, 2)
    assert fit(Schedule | None, {"end": 2.0}, "") == Schedule(end=2.0)
    with pytest.raises(SmaltiError, match=r"^config\.end: expected float, got 'x'$"):
        from_dict(Schedule, {"end": "x"})


def test_whatever_a_constructor_of_ones_own_raises_is_one_line():
    class Mine:
        def __init__(self, *, size: int):
            raise KeyError("many\nlines" * 1000)

    with pytest.raises(SmaltiError, match="^thing: no Mine can be made of these values .KeyError") as caught:
        construct(Mine, {"size": 1}, "thing")
    assert len(str(caught.value)) <= LONGEST and "\n" not in str(caught.value)

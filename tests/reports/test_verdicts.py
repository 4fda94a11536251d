"""The sentences of the comparison's page follow its numbers."""

from types import SimpleNamespace

import pytest
import torch

from smalti.evaluation.comparison import GradientPath
from smalti.evaluation.distances import Distance
from smalti.evaluation.samples import MeasuredSets
from smalti.reports.compared import Comparison, Origin
from smalti.reports.generation_page import verdicts
from smalti.reports.gradients_page import _lengths


def system(name, discrete, path=None):
    evaluations = [{"split": "test"}]
    return SimpleNamespace(name=name, discrete=object() if discrete else None, evaluations=evaluations, path=path)


def comparison(**distances):
    """Of a prior, the random codes of its tokenizer, z of another, noise of a third, as far as they are measured."""
    origins = {
        "prior": Origin("vqvae + pixelcnn", "prior", "vqvae", "pixelcnn"),
        "codes": Origin("vqvae, codes from p(z)", "p(z)", "vqvae"),
        "z": Origin("vae, z from p(z)", "p(z)", "vae"),
        "noise": Origin("ae, noise like its latents", "noise", "ae"),
    }
    found = {origins[name].title: {"fd_effnet": Distance(value, 0.1)} for name, value in distances.items()}
    systems = [system("ae", False), system("vae", False), system("vqvae", True)]
    sets = MeasuredSets(8, {}, found)
    return Comparison(systems, [], {}, torch.zeros(2, 3, 8, 8), [*origins.values()], sets, {})  # pyright: ignore


@pytest.mark.parametrize(("prior", "codes", "word"), [(1.0, 2.0, "nearer to"), (3.0, 2.0, "farther from")])
def test_a_prior_is_set_against_the_codes_of_its_own_system(prior, codes, word):
    (line,) = verdicts(comparison(prior=prior, codes=codes))
    assert f"“vqvae + pixelcnn” are {word} the test images than those of “vqvae, codes from p(z)”" in line
    assert line.endswith(f"{prior:.2f} against {codes:.2f}.")


def test_z_from_p_z_is_set_against_noise():
    (line,) = verdicts(comparison(z=5.0, noise=4.0))
    assert "“vae, z from p(z)” are farther from the test images than those of “ae, noise like its latents”" in line


def test_without_distances_nothing_is_said():
    assert verdicts(comparison()) == []


def test_a_gradient_is_called_stopped_only_where_it_was_measured_to_be():
    lines = _lengths([system("a", True, GradientPath(0.0, 0.5)), system("b", True, GradientPath(0.25, 0.75)),
                      system("c", False, GradientPath(None, 2.0))])  # fmt: skip
    assert lines == [
        "Measured without: exactly 0 for a; with the remedy at least 0.5 (a).",
        "Nothing stops the gradient of c.",
    ]

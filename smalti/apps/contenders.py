"""Who takes part in a comparison: systems trained alike, and priors on the codes of the discrete ones."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from smalti.apps.code import find_recipe
from smalti.configs import nearest
from smalti.errors import SmaltiError
from smalti.training.experiment import Experiment, PriorExperiment

PRIORS = "vqvae:pixelcnn,vqvae:pixelsnail,dvae:transformer"


def chosen_systems(systems: str, bits: int, options: Mapping[str, Any]) -> dict[str, Experiment]:
    """The trainings that `--systems` names, by the short names of their recipes; grey where the data are.

    Args:
        systems: recipes, with commas.
        bits: of a code, of the discrete ones.
        options: that all have in common.

    Raises:
        SmaltiError: an unknown name, one twice, or a recipe that does not take the options.
    """
    wanted = _listed(systems)
    found = dict(map(find_recipe, wanted))
    if not wanted or len(found) < len(wanted):
        raise SmaltiError(f"systems must be different names separated by commas, not {systems!r}")
    return {name: _experiment(name, recipe, bits, options) for name, recipe in found.items()}


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _experiment(name: str, recipe: Callable[..., Any], bits: int, options: Mapping[str, Any]) -> Experiment:
    """A system's training with the options that all have in common, its codes of `bits` bits where it is discrete."""
    from smalti.data.sources import open_data
    from smalti.models.bottlenecks import BOTTLENECKS

    try:
        inspect.signature(recipe).bind(**options)
    except TypeError as error:
        alike = f"systems are trained alike, so their recipes take {', '.join(options)}"
        raise SmaltiError(f"{name} cannot be compared: {error}; {alike}") from error
    experiment = recipe(**options)
    if not isinstance(experiment, Experiment):
        raise SmaltiError(f"{name} cannot be compared: it is no recipe of an autoencoder")
    spec = experiment.model.bottleneck
    bottleneck = {**spec, **BOTTLENECKS[spec["kind"]].at_rate(bits)}
    seen = replace(experiment.model.preprocessing, channels=open_data(experiment.data).channels)
    return replace(experiment, model=replace(experiment.model, bottleneck=bottleneck, preprocessing=seen))


class ChosenPrior(NamedTuple):
    """A prior to train on the codes of a system."""

    system: str
    name: str  # of the recipe
    recipe: Callable[..., Any]
    data: Mapping[str, Any]  # the options that say what it is trained on

    def experiment(self, tokenizer: Path) -> PriorExperiment:
        """Its training on the codes of the system that was trained into this folder."""
        experiment = self.recipe(tokenizer=str(tokenizer), **self.data)
        if not isinstance(experiment, PriorExperiment):
            raise SmaltiError(f"{self.name} is no recipe of a prior; give one, or --priors none")
        return experiment


def chosen_priors(priors: str, systems: Mapping[str, Experiment], data: Mapping[str, Any]) -> list[ChosenPrior]:
    """The priors that `--priors` names as SYSTEM:RECIPE, with commas; of the default those whose system takes part.

    Raises:
        SmaltiError: an unknown name, a system that is not compared or has no codes for a prior, or a pair twice.
    """
    pairs = [] if priors.strip() == "none" else _listed(priors)
    if priors == PRIORS:
        pairs = [pair for pair in pairs if pair.partition(":")[0] in systems]
    found: dict[tuple[str, str], ChosenPrior] = {}
    for pair in pairs:
        system, _, wanted = pair.partition(":")
        if not wanted:
            raise SmaltiError(f"priors are SYSTEM:RECIPE with commas, or none; not {pair!r}")
        if system not in systems:
            raise SmaltiError(f"the prior {pair} needs {system!r} among --systems; {nearest(system, systems)}")
        name, recipe = find_recipe(wanted)
        try:
            inspect.signature(recipe).bind(tokenizer="", **data)
        except TypeError as error:
            raise SmaltiError(f"{pair}: {name} is no recipe of a prior: {error}") from error
        _check_codes(pair, systems[system])
        if (system, name) in found:
            raise SmaltiError(f"priors must be different, not {pair} twice")
        found[system, name] = ChosenPrior(system, name, recipe, data)
    return list(found.values())


def _check_codes(pair: str, training: Experiment) -> None:
    """Refuse a prior of what has no grid of codes."""
    import torch

    from smalti.models.autoencoder import Autoencoder

    with torch.device("meta"):
        model = Autoencoder(training.model)
    try:
        _ = model.codes_bottleneck
    except SmaltiError as error:
        raise SmaltiError(f"the prior {pair} has nothing to model: {error}") from error

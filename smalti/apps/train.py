"""The verb `train`."""

import time
from pathlib import Path
from typing import Any

from smalti.training.experiment import Training
from smalti.training.hooks import StepHook


def train(
    experiment: Training,
    out: Path | str,
    *,
    start_from: str | None = None,
    on_step: StepHook | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train an autoencoder or a prior by a recipe; re-running resumes.

    Args:
        experiment: what a recipe gives.
        out: the run's folder.
        start_from: --from in the shell: the folder of a model, or owner/name on the hub, whose weights a new run begins
            with; its data, settings and some shapes may be others.
        on_step: from Python only: called after every step with a `smalti.training.hooks.Step`.
        **settings: of the run, see `RunSettings`; the others stay the experiment's own.
    """
    started = time.perf_counter()
    from smalti.reports.model_card import model_card
    from smalti.training.log import read_metrics
    from smalti.training.loop import train as run_training

    run = run_training(
        experiment.with_settings(**settings),
        out,
        start_from=start_from,
        card=model_card,
        on_step=on_step,
        progress=True,
        started=started,
    )
    records = read_metrics(run / "metrics.jsonl")
    return {"run": str(out), **(records[-1] if records else {})}

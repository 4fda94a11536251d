"""What the command line prints: progress on stderr, a verb's result as text."""

import sys
from typing import Any


def say(text: str) -> None:
    """Print to stderr."""
    print(text, file=sys.stderr)


def as_text(verb: str, result: dict[str, Any]) -> str:
    """A verb's result for a person."""
    from smalti.reports.model_card import format_number

    lines = []
    if verb == "evaluate":
        lines.append(f"{result['num_images']} images of the {result['split']} split of {result['data']}")
    shown = {name: value for name, value in result.get("metrics", result).items() if name != "written"}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if value in ({}, []):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{key} {_short(item)}" for key, item in value.items())
        lines.append(f"  {name:<{width}}  {format_number(value) if isinstance(value, float) else _short(value)}")
    if probes := result.get("probes"):
        lines += _probes_as_text(probes)
    written = result.get("written", [])
    for path in [written] if isinstance(written, str) else written[:12]:
        lines.append(f"wrote {path}")
    if isinstance(written, list) and len(written) > 12:
        lines.append(f"and {len(written) - 12} more")
    return "\n".join(lines)


def _probes_as_text(probes: dict[str, Any]) -> list[str]:
    """The table of the probes, with what they were trained on."""
    from smalti.evaluation.catalogue import format_metric

    majority = format_metric("majority_accuracy", probes["majority_accuracy"])
    counts = f"{probes['num_train']} training and {probes['num_test']} test images"
    lines = [f"probes of the {probes['num_labels']} labels {probes['label']!r}, {counts}, the commonest: {majority}"]
    lines.append(f"  {'representation':<16}{'dims':>6}{'linear':>16}{str(probes['k']) + ' nearest':>16}")
    for row in probes["rows"]:
        cells = [
            f"{format_metric(f'{kind}_accuracy', row[f'{kind}_accuracy'])} +- {row[f'{kind}_standard_error']:.1%}"
            for kind in ("linear", "knn")
        ]
        lines.append(f"  {row['representation']:<16}{row['dims']:>6}" + "".join(f"{cell:>16}" for cell in cells))
    return lines + [f"  no {name}: {why}" for name, why in probes["left_out"].items()]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return (" x " if all(isinstance(item, int) for item in value) else ", ").join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)

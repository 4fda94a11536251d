"""Self-contained pages, charts, model cards and contact sheets."""

"""Tables of runs, self-contained pages, charts and model cards."""

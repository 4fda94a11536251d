"""Models behind HTTP: what `smalti serve` runs."""

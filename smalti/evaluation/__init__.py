"""Metrics and evaluation protocols over whole splits."""

"""Metrics, protocols over whole data sets, and the pictures and pages that show them."""

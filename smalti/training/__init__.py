"""Losses, the one loop, its state, its log."""

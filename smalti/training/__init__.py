"""Losses, the training loop, its state and its log."""

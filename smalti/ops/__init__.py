"""The hot operations: a plain PyTorch reference of each."""

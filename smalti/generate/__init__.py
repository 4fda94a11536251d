"""A prior with its tokenizer: draws images."""

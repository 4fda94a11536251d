"""A prior with its tokenizer: generates images."""

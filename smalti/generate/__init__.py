"""A prior with its tokenizer: samples codes and decodes them to images."""

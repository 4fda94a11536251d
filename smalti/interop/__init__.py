"""Other projects' tokenizers in, ours out."""

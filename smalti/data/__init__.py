"""Images (and captions, labels) in, batches out."""

"""One image in, whatever it is, and out again: pixel ranges, colours, masks, contact sheets."""

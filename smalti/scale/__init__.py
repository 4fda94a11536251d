"""Data sets of any size as shards of codes: what a worker does, who may do which part, and the engines that run it."""

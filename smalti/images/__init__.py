"""Image files, pixel ranges, colour, inpainting masks, contact sheets."""

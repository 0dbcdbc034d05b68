"""Pre-training of the tiny backbone from nothing, on a procedural world (`scripts/tiny_world`)."""

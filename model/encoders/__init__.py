"""Frozen media encoders: CLIP vision tower, BEATs audio tower, Q-Former aligner and projectors."""

"""Gate-free multi-task learning (AoE-MTL) and its baselines: encoders, architectures, heads, losses."""

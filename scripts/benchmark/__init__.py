"""Benchmarks: both sides of every comparison in one run, reported as ratios (`bash scripts/bench.sh`)."""

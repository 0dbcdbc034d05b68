"""Benchmarks made from the annotation files that their authors give out.

A benchmark is one module here that holds a `RECIPE` (recipe.py); its name is the benchmark's. `build` turns
the annotations into sample files and a benchmark file, `extraction` videos into the frames and sounds that
the sample files name.
"""

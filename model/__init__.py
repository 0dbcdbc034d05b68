"""Tensors only: encoders, language model and mixture of experts. Opens no data file and parses no
argument.
"""

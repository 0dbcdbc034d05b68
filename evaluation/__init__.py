"""Evaluation: answers, scores and reports over datasets."""

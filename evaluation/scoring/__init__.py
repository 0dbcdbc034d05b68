"""Scores from recorded answers. Needs numpy only, so that results can be re-scored anywhere."""

"""A procedural audio-visual world: things with a look and a sound, places, scenes, and their rendering.

It replaces a data set twice: the tiny backbone is pre-trained on its unnamed things, and `data_sample/` shows
its named ones. Everything is drawn with numpy from random generators that are passed in.
"""

"""The settings of a grid: their model, where they are read from, checks of commands, and definitions of pricers.

`model.py` has the settings themselves; the other files are its parts. Nothing here starts anything.
"""

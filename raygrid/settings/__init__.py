"""The settings of a grid: their model, their sources, checks of commands, and definitions of pricers.

`model.py` has the settings; the other files are its parts. Nothing here starts anything.
"""

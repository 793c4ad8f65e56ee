"""The cases, one module for each family; importing this package registers them in the order in which they run.

`lives` is the last of the cases that share a grid, because it changes the grid's settings.
"""

from importlib import import_module

FAMILIES = ("bytes", "forms", "batches", "ends", "names", "clients", "jobs", "found", "runtimes", "lives")
OWN_GRIDS = ("starts", "surroundings", "memory", "isolated")

for family in (*FAMILIES, *OWN_GRIDS):
    import_module(f"field.cases.{family}")

"""The cases, one module for each family; importing this registers them, in the order in which they run.

Of those that share a grid the last, `lives`, gives it other settings. Those with grids of their own run beside them.
"""

from importlib import import_module

FAMILIES = ("bytes", "forms", "batches", "ends", "names", "clients", "jobs", "found", "runtimes", "lives")
OWN_GRIDS = ("starts", "surroundings", "memory", "isolated")

for family in (*FAMILIES, *OWN_GRIDS):
    import_module(f"field.cases.{family}")

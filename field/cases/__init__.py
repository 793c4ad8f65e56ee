"""The cases, one module for each family; importing this registers them, in the order in which they run.

Of the cases that share a grid the last, `lives`, gives it other settings. Cases with their own grids run beside these.
"""

from importlib import import_module

FAMILIES = ("bytes", "forms", "batches", "ends", "names", "clients", "jobs", "found", "runtimes", "lives")
OWN_GRIDS = ("starts", "surroundings", "memory", "isolated")

for family in (*FAMILIES, *OWN_GRIDS):
    import_module(f"field.cases.{family}")

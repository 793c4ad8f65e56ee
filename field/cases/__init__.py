"""The cases, one module for each family; importing this registers them, in the order in which they run."""

from field.cases import bytes, forms, batches, ends, names, clients, jobs, runtimes  # noqa: F401, I001 - in this order they run

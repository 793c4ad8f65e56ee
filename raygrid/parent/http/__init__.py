"""The HTTP interface of a parent: routes, schemas, forms, problems, and the listener with its limits.

What a parent does without HTTP is in `parent/service.py`.
"""

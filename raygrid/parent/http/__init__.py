"""The HTTP interface of a parent: the application (`app.py`), routes, schemas, forms, problems, and the listener.

The parent without HTTP is in `parent/service.py`.
"""

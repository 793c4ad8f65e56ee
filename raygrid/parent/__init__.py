"""Tier 1: the parent takes jobs over HTTP, stores them, chooses a group, and gives results back.

`routes.py` is plain FastAPI over `service.py`; `forms.py` reads bodies as streams; `groups.py` knows the groups and
their leaders; `results.py` finds result bytes; `streams.py` makes event and result streams; `housekeeping.py` purges;
`ingress.py` is all that knows Ray. Parents keep no state of their own: any number of them share the job store.
"""

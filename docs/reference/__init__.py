"""Each module writes the reference page of its own name from the code, so that no page can be forgotten or outdated.

`hook` gives the pages to MkDocs; nothing of them is committed. The other pages under `docs/` are written by hand.
"""

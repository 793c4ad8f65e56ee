"""Each module generates the reference page with its name from the code, so that no page can be outdated.

`hook` adds the pages to MkDocs; they are not committed. The other pages under `docs/` are written by hand.
"""

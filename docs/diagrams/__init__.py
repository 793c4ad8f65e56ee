"""The diagrams as Python values: each module except `drawing` defines one, and `make docs` draws it as SVG in its page.

So diagrams need no other program and no network in the browser, and follow the page's colours; a test compares them
with the code. A page includes one by a line `<!-- diagram: job_states -->`.
"""

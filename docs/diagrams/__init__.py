"""The diagrams, as text: each module but `drawing` describes one, and `make docs` draws it into its page as SVG.

Drawn so, they need no other program, no network in the browser, and follow the page's colours; and a test compares them
with the code that they show. A page asks for one by a line `<!-- diagram: job_states -->`.
"""

"""Fuzzers: a module for each reader of untrusted bytes, with a function `run(data)` and the errors it may raise.

`python -m security.fuzzers NAME` runs one under atheris. Without atheris, tests pass the corpus through the same
functions.
"""

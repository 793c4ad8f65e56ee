"""The documentation, and the code that generates its reference pages and diagrams (`make docs`)."""

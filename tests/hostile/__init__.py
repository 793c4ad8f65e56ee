"""Hostile pricers, and whole grids of an ordinary user that run them in namespaces of their own."""

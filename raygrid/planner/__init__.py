"""Capacity planning: the grid's deciding code on a virtual clock, with simulated nodes and jobs."""

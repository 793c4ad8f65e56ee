"""Capacity planning: the grid's deciding code on a virtual clock, with as many nodes and jobs as you ask for."""

"""The deciding code: pure functions and state machines, used by the grid, the tests and the simulations.

Code here does no I/O, uses neither Ray nor an event loop, and reads no clock. It takes events and returns commands;
the time is an argument (`now`, seconds since the epoch).
"""

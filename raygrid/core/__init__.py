"""The deciding code: pure functions and state machines.

Nothing here does I/O, knows Ray or an event loop, or reads a clock: events come in, commands go out, and the
time is an argument (`now`, seconds since the epoch). The same code runs in the grid, in tests and in simulations.
"""

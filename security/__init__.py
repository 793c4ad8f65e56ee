"""Tests with hostile input: Schemathesis against a grid, a fuzzer for each reader, advisories (`make security`)."""

"""Warm pricers: processes that run one job after another, their pool, and their protocol."""

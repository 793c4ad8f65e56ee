"""Warm pricers: processes that run one job after the other, the pool of them, and their protocol."""

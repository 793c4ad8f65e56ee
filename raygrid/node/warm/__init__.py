"""Warm pricers: processes that price one job after the other, their pool, and the protocol they speak."""

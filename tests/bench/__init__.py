"""Measurements, run by hand; pytest never collects them."""

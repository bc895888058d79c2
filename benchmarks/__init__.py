"""Measurements of speed; each script prints its table."""

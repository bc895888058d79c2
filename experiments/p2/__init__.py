"""Problem 2."""

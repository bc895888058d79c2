"""Problem 1."""

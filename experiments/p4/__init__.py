"""Problem 4."""

"""Problem 3."""

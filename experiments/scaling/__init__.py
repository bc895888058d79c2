"""The model of scaling."""

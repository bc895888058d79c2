"""Standalone experiment scripts and the few modules they share; each writes tidy parquet through `store`."""

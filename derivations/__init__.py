"""Symbolic derivations (sympy only), one module per concept; each can be read, tested and printed on its own."""

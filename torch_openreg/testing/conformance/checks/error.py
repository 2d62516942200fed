"""Errors (L2): types, when they come, what is left afterwards."""

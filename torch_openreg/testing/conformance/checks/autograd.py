"""Autograd (L4)."""

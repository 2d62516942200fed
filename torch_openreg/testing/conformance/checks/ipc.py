"""Tensors between processes (L4)."""

"""Saving and loading (L4)."""

"""Collectives (L5)."""

"""Random numbers (L4)."""

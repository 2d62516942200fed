"""Mixed precision (L4)."""

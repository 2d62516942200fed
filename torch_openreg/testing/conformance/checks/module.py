"""The module torch.<type> (L1)."""

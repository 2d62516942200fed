"""DLPack (L4)."""

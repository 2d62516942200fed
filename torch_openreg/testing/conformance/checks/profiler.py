"""The profiler (L4)."""

"""Devices (L1): counting, names, indices, the current device."""

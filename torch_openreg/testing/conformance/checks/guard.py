"""Guards (L1): the current device and stream around a block."""

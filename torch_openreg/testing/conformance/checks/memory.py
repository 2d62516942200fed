"""Memory (L2): allocation, statistics, limits, reuse."""

"""Events (L2): order, queries, times."""

"""torch.compile (L5)."""

"""Hooks (L1): what torch.accelerator and core ask of a backend."""

"""Registers torch-mojo-backend's device, which its import alone does not: for `--device mojo --import mojo_ready`."""

import torch_mojo_backend

torch_mojo_backend.register_mojo_devices()

"""Starts mycelya-torch's machine that runs in this process, instead of a rented one: for `--device mycelya --import mycelya_ready`."""

import mycelya_torch

machine = mycelya_torch.RemoteMachine("mock")
device = machine.device("cpu")

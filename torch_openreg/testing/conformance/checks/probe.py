"""What a check sees of the device under test: one device, its module, and shorthands that end a check with a sentence."""

import torch

from ..calls import NotApplicable
from ..compare import Mismatch


class Probe:
    """One device for one check.

    device: torch.device with an index, but for cpu, meta and mps. module: `torch.<type>`, or None when there is none.
    """

    def __init__(self, under_test):
        self.under_test = under_test
        self.device = under_test.device
        self.type = self.device.type
        self.module = getattr(torch, self.type, None)

    def expect(self, holds, sentence: str) -> None:
        """Raises Mismatch with the sentence unless it holds."""
        if not holds:
            raise Mismatch(sentence)

    def synchronize(self) -> None:
        """Waits for all work of the device. Late errors are raised here."""
        self.under_test.synchronize()

    def needs(self, holds, reason: str) -> None:
        """Raises NotApplicable with the reason unless it holds."""
        if not holds:
            raise NotApplicable(reason)

    def needs_accelerator(self) -> None:
        """Ends the check for cpu and meta, and for a device that is not the process's accelerator."""
        current = torch.accelerator.current_accelerator()
        self.needs(current is not None and current.type == self.type, f"{self.type} is not this process's accelerator")

    def needs_two_devices(self) -> None:
        """Ends the check where there is no second device."""
        self.needs_accelerator()
        count = torch.accelerator.device_count()
        self.needs(count > 1, f"{self.type} has {count} device, and this needs two")

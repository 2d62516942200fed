"""What a check sees of the device under test: one device, its module, and shorthands that end a check with a sentence."""

import threading
import time

import torch

from ..calls import NotApplicable
from ..compare import Mismatch

BUSY_ELEMENTS = (1 << 20, 1 << 23, 1 << 26)  # sizes of the work of `busy`; the first one that takes a millisecond is taken


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

    def expect_raises(self, call, sentence: str, kinds=(Exception,)) -> Exception:
        """The error of call(); raises Mismatch with the sentence when it raises none, or one of another type."""
        try:
            call()
        except kinds as error:
            return error
        except Exception as error:
            raise Mismatch(f"{sentence}: raised {type(error).__name__}: {str(error).splitlines()[0]}") from error
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

    def requires(self, *names: str) -> None:
        """Raises NotImplementedError unless the device's module has these names, which torch itself calls. The CPU needs none."""
        for name in names:
            if self.type != "cpu" and not hasattr(self.module, name):
                raise NotImplementedError(f"torch.{self.type} has no {name}, which torch calls")

    def needs_two_devices(self) -> torch.device:
        """Another device of the type. Ends the check where there is none."""
        self.needs_accelerator()
        count = torch.accelerator.device_count()
        self.needs(count > 1, f"{self.type} has {count} device, and this needs two")
        return torch.device(self.type, 1 if self.device.index != 1 else 0)

    def needs_streams(self) -> None:
        """Ends the check where the device has no streams of its own."""
        self.needs_accelerator()
        self.needs_support(lambda: torch.Stream(device=self.device), "streams")
        self.needs(hasattr(self.module, "Stream") or torch.Stream(device=self.device).stream_id, f"{self.type} has the default stream only")

    def needs_support(self, call, what: str) -> None:
        """Ends the check when call() says that the backend does not support it."""
        try:
            call()
        except Exception as error:
            if "support" not in str(error):
                raise
            raise NotApplicable(f"{self.type} has no {what}: {str(error).splitlines()[0]}") from None

    def stream(self, device=None, **options) -> torch.Stream:
        """A new stream of the device, or of another one. Ends the check where there are none."""
        self.needs_streams()
        return torch.Stream(device=device or self.device, **options)

    def needs_events(self) -> None:
        """Ends the check where the device has no events."""
        self.needs_streams()
        self.needs_support(lambda: torch.Event(device=self.device).record(torch.Stream(device=self.device)), "events")

    def needs_memory_statistics(self) -> None:
        """Raises NotImplementedError where the device's allocator is not torch's DeviceAllocator, from which torch.accelerator's numbers come."""
        self.needs_accelerator()
        torch.ones(1, device=self.device)
        try:
            torch.accelerator.memory_stats(self.device)
        except RuntimeError as error:
            raise NotImplementedError(f"{self.type} has no statistics of torch.accelerator: {str(error).splitlines()[0]}") from error

    def busy(self, seconds: float = 0.06) -> tuple[torch.Tensor, int]:
        """(zeros, how many additions of 1 keep a stream busy for about that long): what `work` queues, and the value at the end."""
        for elements in BUSY_ELEMENTS:
            value = torch.zeros(elements, device=self.device)
            each = min(self._seconds(lambda: value.add_(1)) for _ in range(4))  # noqa: B023  (called at once)
            if each >= 1e-3 or elements == BUSY_ELEMENTS[-1]:
                break
        value.zero_()
        self.synchronize()
        return value, max(16, min(200, int(seconds / each)))

    def _seconds(self, call) -> float:
        started = time.perf_counter()
        call()
        self.synchronize()
        return time.perf_counter() - started

    def work(self, value: torch.Tensor, steps: int) -> None:
        """Queues `steps` additions of 1 on the current stream."""
        for _ in range(steps):
            value.add_(1)

    def busy_stream(self) -> tuple[torch.Stream, torch.Tensor, int]:
        """(a new stream with `work` queued on it, the value that it changes, the value at the end). Ends the check where there are no streams."""
        stream, (value, steps) = self.stream(), self.busy()
        with stream:
            self.work(value, steps)
        return stream, value, steps

    def read_elsewhere(self, value: torch.Tensor) -> float:
        """The last element as it is now, read on a stream of its own, which waits for no other."""
        with torch.Stream(device=value.device):
            return value[-1:].cpu().item()

    def in_a_thread(self, call):
        """call() in a thread of its own: its result, or its error raised here."""
        outcome = {}

        def run():
            try:
                outcome["value"] = call()
            except BaseException as error:  # it is raised again where somebody looks
                outcome["error"] = error

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["value"]

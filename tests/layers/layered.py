"""The sanitizer layer around a driver, for tests without torch: launches that name what they touch, and what the layer found."""

import ctypes as c
import itertools
import math

import hal

RACES, LIFETIME, INIT, BOUNDS = 1, 2, 4, 8
SOME, MOVED = 1, 2


class Layered(hal.Driver):
    """hal.Driver with the sanitizer's own functions."""

    def __init__(self, path):
        super().__init__(path)
        for name in ("findings", "possible"):
            getattr(self.library, name).restype = c.c_char_p
        for name in ("new_token", "open_promises", "new_mark"):
            getattr(self.library, name).restype = c.c_uint64

    def findings(self):
        """[(mode, sentence, accesses..., allocation, remedy)] since the last call."""
        return [line.split("|") for line in self.library.findings().decode().splitlines()]

    def possible(self):
        return [line.split("|") for line in self.library.possible().decode().splitlines()]

    def use(self, stream, *operands, name=b"op", tag=0, fails=False, status=hal.OK):
        """Launches a task that touches nothing but says it does: operands are (base, bytes, write) or (base, sizes, strides, write, flags, token).

        With `fails` the task fails; `status` is what the launch itself returns.
        """
        ranges = (hal.Range * len(operands))()
        details = (hal.Operand * len(operands))()
        for i, operand in enumerate(operands):
            if len(operand) == 3:
                base, size, write = operand
                ranges[i] = hal.Range(base, size, write)
                continue
            base, sizes, strides, write, flags, token = operand
            ranges[i] = hal.Range(base, math.prod(sizes), write)
            details[i] = hal.Operand(flags, 1, len(sizes), (c.c_int64 * len(sizes))(*sizes), (c.c_int64 * len(strides))(*strides), b"byte", token)
        desc = hal.LaunchDesc(c.sizeof(hal.LaunchDesc), name, tag, 0, 0, ranges, len(operands), None, details)
        function = hal.HostFunc(lambda arguments, error: hal.LAUNCH_FAILED if fails else hal.OK)
        self.keep += [desc, ranges, details, function]
        assert self.launch_host_func(stream, c.cast(function, hal.ptr), None, 0, c.byref(desc)) == status

    def order(self, earlier, later):
        self.ok(self.stream_wait_event(later, self.record(earlier)))


def elements(base, element_bytes, sizes, strides):
    """Every address of a strided set."""
    for index in itertools.product(*map(range, sizes)):
        begin = base + element_bytes * sum(i * stride for i, stride in zip(index, strides))
        yield from range(begin, begin + element_bytes)

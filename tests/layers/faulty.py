"""A driver with the fault layer around it, for tests without torch: plans, and what they did."""

import contextlib
import ctypes as c

import hal


class Faulty(hal.Driver):
    """hal.Driver with fault plans."""

    def __init__(self, path):
        super().__init__(path)
        self.library.begin_plan.restype = c.c_uint64
        self.library.begin_plan.argtypes = [c.c_char_p, c.POINTER(c.c_uint64), c.POINTER(c.c_char_p)]
        self.library.end_plan.argtypes = [c.c_uint64]
        for name in ("fired", "waiting"):
            getattr(self.library, name).restype = c.c_char_p
            getattr(self.library, name).argtypes = [c.c_uint64]

    def begin(self, plan):
        position, problem = c.c_uint64(), c.c_char_p()
        name = self.library.begin_plan(plan.encode(), c.byref(position), c.byref(problem))
        if name == 0:
            raise ValueError(position.value, problem.value.decode())
        return name

    @contextlib.contextmanager
    def plan(self, text):
        name = self.begin(text)
        try:
            yield name
        finally:
            self.library.end_plan(name)

    def fired(self, name):
        return [tuple(line.split("|")) for line in self.library.fired(name).decode().splitlines()]

    def waiting(self, name):
        return self.library.waiting(name).decode().splitlines()

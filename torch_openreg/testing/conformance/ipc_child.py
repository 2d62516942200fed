"""The other process of the checks of `checks.ipc`: receives a tensor and writes into it. Kept apart so that it starts quickly."""

import contextlib
import sys
import types

from .device import DeviceUnderTest


def talk(name: str, module: str, pipe) -> None:
    """Says what it receives, adds one, and says it again when told to."""
    under_test = DeviceUnderTest(name, module)
    tensor = pipe.recv()
    pipe.send((str(tensor.device), tensor.stride(), tensor.cpu().tolist()))
    tensor.add_(1)
    under_test.synchronize()
    pipe.send("added")
    pipe.recv()
    pipe.send(tensor.cpu().tolist())
    del tensor


@contextlib.contextmanager
def without_main():
    """A process that is spawned inside does not run this process's main program once more."""
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main

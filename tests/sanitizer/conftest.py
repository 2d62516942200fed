"""Programs in processes of their own, quickly: one process imports torch, and every program runs in a fork of it.

The tests of this folder choose modes themselves: what OPENREG_SANITIZE asks of the whole suite is off around each.
"""

import pytest
from fork_server import ForkServer

@pytest.fixture(scope="session")
def fork_server(tmp_path_factory):
    server = ForkServer(tmp_path_factory.mktemp("programs"))
    yield server
    server.stop()


@pytest.fixture
def sanitized(fork_server):
    """sanitized(program, modes, schedule): runs it with OPENREG_SANITIZE in a process of its own."""

    def run(program, modes="", schedule="eager"):
        return fork_server.run(program, {"OPENREG_DEVICES": "2", "OPENREG_SANITIZE": modes, "OPENREG_SCHEDULE": schedule})

    return run


@pytest.fixture(autouse=True, scope="module")
def own_modes():
    """Nothing is on when a test begins, before the suite's own fixture looks."""
    import torch

    before = torch.openreg.sanitizer.enabled()
    torch.openreg.sanitizer.disable()
    yield
    if before:
        torch.openreg.sanitizer.enable(before)

"""Programs in processes of their own, quickly: one process imports torch, and every program runs in a fork of it.

The tests of this folder choose modes themselves: what OPENREG_SANITIZE asks of the whole suite is off around each.
"""

import json
import os
import subprocess
import sys
import textwrap
import types

import pytest

SERVER = """
import json, os, sys
import torch, torch_openreg
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    pid = os.fork()
    if pid != 0:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps(status), flush=True)
        continue
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(os.path.join(request["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdin.close()
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    torch.openreg.sanitizer.prepare()  # reads OPENREG_SANITIZE, as the import does
    exec(compile(request["program"], "<program>", "exec"), {"__name__": "__main__"})
    break
"""


class ForkServer:
    """A process with torch_openreg imported and no device used, which runs programs in forks of itself."""

    def __init__(self, folder):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(os.path.dirname(sys.modules["torch_openreg"].__file__)), environment.get("PYTHONPATH", "")])
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, "-c", SERVER], env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def run(self, program, environment):
        """The exit status and the output, as of subprocess.run."""
        request = {"program": textwrap.dedent(program), "environment": environment, "folder": str(self.folder)}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        status = json.loads(self.process.stdout.readline())
        output = {name: (self.folder / name).read_text() for name in ("stdout", "stderr")}
        return types.SimpleNamespace(returncode=status, **output)

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0


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

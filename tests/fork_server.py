"""A process that has imported what programs need, and runs each program in a fork of itself: quicker than a process that imports it again."""

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

# A program finds what `python -c` offers: __main__ of its own, standard input at its end, and its own standard output and error.
SERVER = """
def serve():
    import json, os, sys
    import torch, torch_openreg
    {prelude}
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            break
        print(pid, file=answers, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)
    else:
        os._exit(0)  # it used no device, and taking apart what it imported takes seconds
    answers.close()
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(os.path.join(request["output"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    torch_openreg.driver.prepare(torch_openreg._C)  # reads the settings again, as the import did
    torch.openreg.sanitizer.prepare()
    return compile(request["program"], "<string>", "exec")

exec(serve(), globals())
"""


class ForkServer:
    """A process with torch_openreg imported and no device used, which runs programs in forks of itself.

    output: a folder for what programs print. prelude: what the process runs before the first fork; it uses no device. paths: more folders
    that programs import from. Not for programs about imports, or about variables that something reads when it is imported.
    """

    def __init__(self, output, prelude="", paths=()):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
        environment["PYTHONPATH"] = os.pathsep.join([package_root(), *map(str, paths), environment.get("PYTHONPATH", "")])
        self.output = Path(output)
        program = SERVER.format(prelude=textwrap.indent(textwrap.dedent(prelude), "    ").strip())
        self.process = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=output, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout.readline() == b"ready\n"

    def run(self, program, environment, *, folder=None, timeout=300):
        """The exit status and the output, as of subprocess.run(..., text=True), which raises TimeoutExpired, too."""
        request = {"program": textwrap.dedent(program), "environment": environment, "output": str(self.output), "folder": str(folder or self.output)}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            os.killpg(pid, signal.SIGKILL)
            self.process.stdout.readline()
            raise subprocess.TimeoutExpired("a program of the test", timeout, *self._printed())
        return subprocess.CompletedProcess("a program of the test", int(self.process.stdout.readline()), *self._printed())

    def _printed(self):
        return [(self.output / name).read_text() for name in ("stdout", "stderr")]

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0


def package_root():
    """The folder that the torch_openreg under test is imported from, or an empty text."""
    spec = importlib.util.find_spec("torch_openreg")
    return os.path.dirname(os.path.dirname(spec.origin)) if spec else ""

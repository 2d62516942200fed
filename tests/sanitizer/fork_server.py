"""A process that has imported what programs need, and runs each program in a fork of itself: quicker than a process that imports it again."""

import json
import os
import subprocess
import sys
import textwrap
import types

SERVER = """
import json, os, sys
import torch, torch_openreg
{prelude}
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
    exec(compile(request["program"], "<program>", "exec"), {{"__name__": "__main__"}})
    break
else:
    os._exit(0)  # it used no device, and taking apart what it imported takes seconds
"""


class ForkServer:
    """A process with torch_openreg imported and no device used, which runs programs in forks of itself.

    folder: where programs run, and where their output goes. prelude: what the process runs before the first fork; it uses no device.
    paths: more folders that programs import from.
    """

    def __init__(self, folder, prelude="", paths=()):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENREG_")}
        package = os.path.dirname(os.path.dirname(sys.modules["torch_openreg"].__file__))
        environment["PYTHONPATH"] = os.pathsep.join([package, *map(str, paths), environment.get("PYTHONPATH", "")])
        self.folder = folder
        program = SERVER.format(prelude=prelude)
        self.process = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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

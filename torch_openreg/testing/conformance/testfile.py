"""`openreg conformance testfile`: the device-generic tests of a file on the CPU and on a device, and where the two differ.

Both runs are processes of their own, started again after a crash or a hang. No torch is imported here.
"""

import collections
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch_openreg import child
from torch_openreg.testing.conformance.environment import worker_environment
from torch_openreg.testing.conformance.pool import RunFailed

BAD = ("failed", "crash", "timeout")


@dataclass(frozen=True)
class Outcome:
    """What became of one test: passed, skipped, failed, crash, timeout; `message` is one line."""

    outcome: str
    message: str = ""


def read(record: Path) -> dict[str, Outcome]:
    """The outcomes in a record; a test that began and did not end has the outcome `started`."""
    outcomes: dict[str, Outcome] = {}
    for line in record.read_text().splitlines():
        name, outcome, message = json.loads(line)
        known = outcomes.get(name)
        if known is None or known.outcome not in BAD:
            outcomes[name] = Outcome(outcome, message)
    return outcomes


def run_file(file: Path, device: str, module: str, tests: tuple[str, ...], timeout: float) -> dict[str, Outcome]:
    """Runs the tests for one device. Raises RunFailed when they cannot be started at all."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.jsonl"
        record.touch()
        config = {"file": str(file), "device": device, "module": module, "tests": tests, "timeout": timeout, "record": str(record)}
        while True:
            command = child.command("torch_openreg.testing.conformance.testfile_child", json.dumps(config))
            done = subprocess.run(command, env=worker_environment(device), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            outcomes = read(record)
            interrupted = [name for name, outcome in outcomes.items() if outcome.outcome == "started"]
            if done.returncode == 0 and not interrupted:
                return outcomes
            if not interrupted:
                raise RunFailed(f"{file} cannot be run for {device}: " + "\n".join(done.stderr.strip().splitlines()[-12:]))
            with record.open("a") as lines:
                lines.write(json.dumps([interrupted[0], *_end(done, timeout)]) + "\n")


def _end(done: subprocess.CompletedProcess, timeout: float) -> tuple[str, str]:
    if done.returncode == 1 and "Timeout (" in done.stderr:
        return "timeout", f"the test takes longer than {timeout:g} seconds"
    how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit status {done.returncode}"
    said = done.stderr.strip().splitlines()
    return "crash", f"the process ends with {how}{': ' + said[0] if said else ''}"


def compare(file: Path, device: str, module: str, tests: tuple[str, ...], timeout: float) -> int:
    """Runs the file for the CPU and for the device and prints what differs. 0: nothing that passes on the CPU fails on the device."""
    if not file.is_file():
        raise RunFailed(f"there is no file {file}")
    reference = run_file(file, "cpu", module, tests, timeout)
    if not reference:
        raise RunFailed(f"{file} has no device-generic test that fits; such classes go through instantiate_device_type_tests")
    outcomes = run_file(file, device, module, tests, timeout)
    passed = [name for name, outcome in reference.items() if outcome.outcome == "passed"]
    of = lambda *kinds: [name for name in passed if name in outcomes and outcomes[name].outcome in kinds]  # noqa: E731
    bad, skipped, missing = of(*BAD), of("skipped"), [name for name in passed if name not in outcomes]
    print(f"cpu: {len(reference)} tests, {len(passed)} pass")
    print(f"{device}: of these {len(of('passed'))} pass, {len(bad)} do not, {len(skipped)} are skipped, {len(missing)} do not exist")
    for name in bad:
        print(f"  {outcomes[name].outcome:8}{name}: {outcomes[name].message}")
    for reason, count in collections.Counter(outcomes[name].message for name in skipped).most_common():
        print(f"  skipped {count}: {reason}")
    sys.stdout.flush()
    return 1 if bad else 0

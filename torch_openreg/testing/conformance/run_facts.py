"""DIR/run.json: what a run was asked for and where it ran. Reports show it, and `--resume` continues no other run.

The plan in it is what decides the rows and their results: device, seed, selection, samples, time limit for a row, torch's version, the
OPENREG_ variables. How many workers there are, the time budget and the gap file may differ from one part of a run to the next.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "run.json"
MAY_DIFFER = {"workers"}


class RunFactsError(ValueError):
    """A folder has no run, one that cannot be read, or another one, or cannot have one; the message says which."""


@dataclass(frozen=True)
class RunFacts:
    """plan: see above. command: the words after `openreg`. repro_options: what `repro` needs to see the same.

    started: UTC, as in 2026-01-31T09:00:00Z. rows: COUNT of the plan's rows. exit_problems: sentences about workers that ended badly
    after their last row. kernels: operators that the device has registered kernels of.
    """

    plan: dict
    command: str
    repro_options: str
    started: str
    rows: int
    exit_problems: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        return self.plan["device"]

    @property
    def facts(self) -> dict[str, str]:
        """What a reader wants to know about the run, as name -> text."""
        settings = " ".join(f"{name}={value}" for name, value in self.plan["environment"].items())
        found = {"device": self.device, "module": self.plan["module"], "torch": self.plan["torch"], "torch_openreg": self.plan["torch_openreg"],
                 "seed": str(self.plan["seed"]), "environment": settings, "command": self.command, "started": self.started}
        return {name: value for name, value in found.items() if value}

    def write(self, directory: Path) -> None:
        """Writes the file, and makes the folder. Raises RunFactsError when that cannot be done."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / NAME).write_text(json.dumps(asdict(self), indent=1) + "\n")
        except OSError as error:
            raise RunFactsError(f"{directory} cannot be written: {error.strerror}") from error


def plan_of(plan, *, shard, torch_version: str) -> dict:
    """The part of a Plan that decides rows and results, with what surrounds it, as JSON keeps it."""
    import torch_openreg

    kept = {name: value for name, value in asdict(plan).items() if name not in MAY_DIFFER}
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith("OPENREG_")}
    return json.loads(json.dumps({**kept, "shard": shard, "torch": torch_version, "torch_openreg": torch_openreg.__version__, "environment": environment}))


def read(directory: Path) -> RunFacts | None:
    """The facts in a folder, or None when it has none. Raises RunFactsError when they cannot be read."""
    path = directory / NAME
    try:
        return RunFacts(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RunFactsError(f"{path} does not describe a conformance run") from error


def check_same(directory: Path, before: RunFacts, plan: dict) -> None:
    """Raises RunFactsError unless the plan is the one in the folder."""
    differing = [name for name in before.plan | plan if before.plan.get(name) != plan.get(name)]
    if differing:
        told = ", ".join(f"{name} {_shown(before.plan.get(name))}, now {_shown(plan.get(name))}" for name in differing)
        raise RunFactsError(
            f"{directory} has another run, which --resume cannot continue: {told}. It was started by `openreg {before.command}`; "
            "give it the same options, or leave --resume out to start again"
        )


def _shown(value) -> str:
    return json.dumps(value) if value not in (None, [], {}, "") else "none"

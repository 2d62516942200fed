"""Reads a snapshot file without running what may be in it: a pickle of plain containers, numbers and texts, nothing else."""

import pickle
from pathlib import Path
from typing import Any


class SnapshotError(Exception):
    """A sentence about a file that is no snapshot."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise SnapshotError(f"the file wants to load {module}.{name}; a memory snapshot has plain values only.")


def read(path: Path) -> dict[str, Any]:
    """The dictionary of the file, with `segments` and `device_traces`. OSError and SnapshotError for what cannot be read."""
    with open(path, "rb") as file:
        try:
            found = _PlainUnpickler(file).load()
        except SnapshotError:
            raise
        except Exception as error:  # a pickle can be broken in any way
            raise SnapshotError(f"{path} is no memory snapshot: {type(error).__name__}: {error}") from error
    if isinstance(found, list):  # torch.cuda.memory_snapshot(): segments alone
        found = {"segments": found}
    if not isinstance(found, dict) or not isinstance(found.get("segments"), list):
        raise SnapshotError(f"{path} is no memory snapshot: it has no list of segments.")
    return {"device_traces": [], "external_annotations": [], **found}

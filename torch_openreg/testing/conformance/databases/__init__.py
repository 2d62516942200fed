"""The databases of PyTorch's own tests that the kit runs on a device. This module does not import torch.

Each has a file here, named like it, which offers: `entries()`, full row name -> entry; `dtypes(entry, mode)`, the names
of the dtypes that make a row; `draw(entry, dtype, mode, seed)`, the row's samples, made on the CPU, each with
`summary()`; `tolerances(entry, mode)`; and `RUNNERS`, mode -> function(entry, sample, under_test, floors, seed, stage)
that runs one sample on both sides and raises Mismatch, CpuCannot, or what the device raises.
"""

import importlib
from dataclasses import dataclass, field

OTHER_SAMPLES = 24  # samples per row for a mode and dtype that the main job does not name


@dataclass(frozen=True)
class Database:
    """A database: its name, how the names of its rows begin, its modes in order, and its main job.

    main: mode and dtype -> samples per row of a run without options.
    """

    name: str
    prefix: str
    modes: tuple[str, ...]
    main: dict[tuple[str, str], int] = field(hash=False)

    def load(self):
        """The module with the entries. Imports torch and its testing modules."""
        return importlib.import_module(f".{self.name}", __package__)


def _main(dtypes: dict[str, tuple[str, ...]], samples: int = OTHER_SAMPLES) -> dict[tuple[str, str], int]:
    return {(mode, dtype): samples for mode, names in dtypes.items() for dtype in names}

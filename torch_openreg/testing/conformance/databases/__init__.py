"""The databases that the kit runs on a device: those of PyTorch's own tests, and the kit's checks. This module does not import torch.

Each has a file here, named like it, which offers: `entries()`, full row name -> entry; `dtypes(entry, mode)`, the names
of the dtypes that make a row; `draw(entry, dtype, mode, seed)`, the row's samples, made on the CPU: SampleInputs, or
objects with `on(device)` and `summary()`; `tolerances(entry, mode)`; and `RUNNERS`, mode -> run(case), as in `..modes`.
"""

import difflib
import importlib
from dataclasses import dataclass, field

from .. import rows

DEFAULT = "op"
NO_DTYPE = "none"  # of a row of the checks
DTYPES = (*rows.DTYPES, *rows.FLOAT8, "qint8", "quint8", "qint32", NO_DTYPE)  # those that a row may have; the last ones in packs only


@dataclass(frozen=True)
class Database:
    """A database: its name, how the names of its rows begin, its modes in order, and how much of it to run.

    main: mode and dtype -> samples per row of a run without options. chosen: the same for modes that are named.
    """

    name: str
    prefix: str
    modes: tuple[str, ...]
    main: dict[tuple[str, str], int] = field(hash=False)
    chosen: dict[tuple[str, str], int] = field(hash=False)

    def load(self):
        """The module with the entries. Imports torch and its testing modules."""
        return importlib.import_module(f".{self.name}", __package__)


def _database(name: str, prefix: str, plan: dict[str, dict[str, int]]) -> Database:
    """A database whose main job is all of its modes: mode -> dtype -> samples per row."""
    main = {(mode, dtype): samples for mode, dtypes in plan.items() for dtype, samples in dtypes.items()}
    return Database(name, prefix, tuple(plan), main, main)


_EVERY = {"float32": 12, "int64": 6, "bool": 6, "bfloat16": 6, "complex64": 6}
_TWO = {"float32": 12, "complex64": 6}
_STEPS = {"float32": 24, "bfloat16": 6, "complex64": 12}
_SOME = {"float32": 9, "complex64": 3}

DATABASES = {
    database.name: database
    for database in (
        Database("op", "", rows.MODES, rows.DEFAULT_SELECTION, rows.CHOSEN),
        _database("python_ref", "_refs.", {
            "forward": {"float32": 12, "int64": 4, "bool": 4, "bfloat16": 4, "complex64": 4},
            "prims": {"float32": 12, "int64": 4, "bool": 4, "bfloat16": 4, "complex64": 4},
            "layouts": {"float32": 4},
            "out": {"float32": 4},
            "errors": {"float32": 12},
        }),
        _database("foreach", "_foreach_", {
            "forward": _EVERY, "inplace": _EVERY, "zero_size": {"float32": 4, "int64": 2}, "noncontiguous": _TWO,
            "gradient": _TWO, "inplace_gradient": _TWO, "mixed_dtypes": {"float32": 12, "int64": 6},
            "mixed_dtypes_inplace": {"float32": 12, "int64": 6}, "mixed_devices": _TWO, "mixed_devices_inplace": _TWO,
            "errors": {"float32": 24},
        }),
        _database("fused", "_fused_", {
            "inplace": {"float32": 24, "float64": 12, "bfloat16": 12, "float16": 12},
            "functional": {"float32": 12}, "errors": {"float32": 24},
        }),
        _database("module", "module.", {
            "forward": {"float32": 24, "bfloat16": 6, "complex64": 6}, "gradient": {"float32": 24, "complex64": 6},
            "gradgrad": {"float32": 6}, "noncontiguous": {"float32": 8}, "to": {"float32": 3, "float64": 2},
            "factory": {"float32": 2}, "state_dict": {"float32": 3}, "copy": {"float32": 3}, "inplace": {"float32": 4},
            "memory_format": {"float32": 6}, "errors": {"float32": 24},
        }),
        _database("optim", "optim.", {
            "default": _STEPS, "forloop": _STEPS, "foreach": _STEPS, "fused": {"float32": 24, "float64": 6},
            "capturable": _STEPS, "differentiable": {"float32": 12}, "tensor_lr": {"float32": 24}, "groups": _SOME,
            "state_dict": _SOME, "closure": {"float32": 12, "complex64": 6}, "sparse": {"float32": 12}, "mixed": _SOME,
            "errors": {"float32": 24},
        }),
        _database("model", "model.", {"call": dict.fromkeys((*rows.DTYPES, *rows.FLOAT8, "none"), rows.ALL_SAMPLES)}),
        _database("check", "check.", {"check": {"none": 1}}),
    )
}  # fmt: skip


def select(database: Database, *, globs=(), dtypes=(), modes=(), full=False) -> list[rows.Row]:
    """The rows of a run in this database, in its order, by the rules of rows.select. Loads it."""
    module = database.load()
    if database.name == DEFAULT:
        return rows.select(module.entries().values(), globs=globs, dtypes=dtypes, modes=modes, full=full)
    return [
        rows.Row(name, dtype, mode)
        for name, entry in module.entries().items()
        if not globs or rows.matches(name, globs)
        for mode in database.modes
        if not modes or mode in modes
        for dtype in module.dtypes(entry, mode)
        if (dtype in dtypes if dtypes else full or (mode, dtype) in database.chosen)
    ]


def samples_for(row: rows.Row, samples: int | None, full: bool) -> int:
    """How many samples of the row to run; 0 means every one. An explicit number wins."""
    if samples is not None:
        return samples
    return rows.ALL_SAMPLES if full else of(row.op).chosen.get((row.mode, row.dtype), rows.OTHER_SAMPLES)


def use_packs(files) -> None:
    """The rows of models come from these packs, where there are any, instead of from all that ship. Raises pack.PackError."""
    if files:
        DATABASES["model"].load().use(files)


def unknown(kind: str, name: str, known) -> str:
    """The sentence about a name that is not known, with the nearest ones, or all where none is near. Empty for one that is."""
    if name in known:
        return ""
    near = difflib.get_close_matches(name, known, 3)
    return f"unknown {kind} {name!r}; " + (f"the nearest are {', '.join(near)}" if near else f"the {kind}s are {', '.join(known)}")


def modes_of(names) -> tuple[str, ...]:
    """The modes of these databases, each once."""
    return tuple(dict.fromkeys(mode for name in names for mode in DATABASES[name].modes))


def of(row_name: str) -> Database:
    """The database that a row's name belongs to."""
    fitting = [database for database in DATABASES.values() if row_name.startswith(database.prefix)]
    return max(fitting, key=lambda database: len(database.prefix))

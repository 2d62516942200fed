"""Rows and their selection: which operators, dtypes and modes a run covers, and with how many samples.

A row is one operator of the database (with its variant), one dtype and one mode. This module does not
import torch: operators are passed in, dtypes are names.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

# The calling forms, in the order of the tables. `forward` and `gradient` are the main job.
MODES = ("forward", "gradient", "gradgrad", "forward_ad", "out", "inplace", "layouts", "views", "scalars", "func", "errors", "warnings")

# The main job: mode and dtype -> samples per row. Sized for five minutes on two cores with a wide margin: the CPU
# against itself takes about one minute.
DEFAULT_SELECTION = {
    ("forward", "float32"): 64,
    ("gradient", "float32"): 64,
    ("forward", "int64"): 24,
    ("forward", "bool"): 24,
    ("forward", "float16"): 24,
    ("forward", "bfloat16"): 24,
    ("forward", "complex64"): 24,
}
# The other modes, when they are named: mode -> dtype -> samples per row.
OTHER_MODES = {
    "gradgrad": {"float32": 12, "complex64": 6},
    "forward_ad": {"float32": 12, "complex64": 6},
    "out": {"float32": 8, "int64": 4, "bool": 4, "complex64": 4},
    "inplace": {"float32": 12, "int64": 8, "bool": 8, "complex64": 8},
    "layouts": {"float32": 12, "int64": 4, "bool": 4, "complex64": 4},
    "views": {"complex64": 12, "float32": 8},
    "scalars": {"float32": 6, "int64": 4, "bool": 4, "complex64": 4},
    "func": {"float32": 4, "int64": 2},
    "errors": {"float32": 24, "int64": 4, "bool": 4, "float16": 4, "bfloat16": 4, "complex64": 4},
    "warnings": {"float32": 12, "int64": 4, "complex64": 4},
}
CHOSEN = {**DEFAULT_SELECTION, **{(mode, dtype): n for mode, dtypes in OTHER_MODES.items() for dtype, n in dtypes.items()}}
TWICE_DIFFERENTIATED = ("float32", "float64", "complex64", "complex128")
DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "bfloat16", "float32", "float64",
    "complex32", "complex64", "complex128",
)  # fmt: skip
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")  # only models have rows in these
OTHER_SAMPLES = 24  # samples per row for a mode and dtype that the main job does not name
ALL_SAMPLES = 0


@dataclass(frozen=True)
class Row:
    """An operator's full name, a dtype's name and a mode. `id` names it on the command line."""

    op: str
    dtype: str
    mode: str

    @property
    def id(self) -> str:
        return f"{self.op}:{self.dtype}:{self.mode}"

    @property
    def family(self) -> str:
        """The name's first part for `linalg.svd`, `nn.functional.relu` and the like, a check's area, a model's pack, else `torch`."""
        head, dot, rest = self.op.partition(".")
        if head == "check":
            return rest.partition(".")[0]
        if head == "model":
            return f"model.{rest.partition('.')[0]}"
        if head in ("module", "optim", "_refs"):
            return head
        if self.op.startswith(("_foreach_", "_fused_")):
            return "foreach"
        if head == "nn":
            return "nn.functional"
        return head if dot and head in ("linalg", "fft", "special", "masked", "signal", "ops") else "torch"


def parse_id(text: str) -> tuple[Row, int | None]:
    """Reads `OP:DTYPE:MODE` or `OP:DTYPE:MODE#SAMPLE`. Raises ValueError with a sentence."""
    name, hash_, sample = text.partition("#")
    parts = name.split(":")
    if len(parts) != 3 or not all(parts) or (hash_ and not sample.isdigit()):
        raise ValueError(f"{text!r} is not a row; a row is OP:DTYPE:MODE or OP:DTYPE:MODE#SAMPLE, as in add:float32:forward#2")
    from . import databases

    modes = databases.of(parts[0]).modes
    if parts[2] not in modes:
        raise ValueError(f"{text!r} has the mode {parts[2]!r}; the modes are {', '.join(modes)}")
    return Row(*parts), int(sample) if hash_ else None


def matches(op_name: str, globs) -> bool:
    return any(fnmatchcase(op_name, glob) for glob in globs)


def samples_for(row: Row, samples: int | None, full: bool) -> int:
    """How many samples of the row to run; ALL_SAMPLES means every one. An explicit number wins."""
    if samples is not None:
        return samples
    return ALL_SAMPLES if full else CHOSEN.get((row.mode, row.dtype), OTHER_SAMPLES)


def select(ops, *, globs=(), dtypes=(), modes=(), full=False) -> list[Row]:
    """The rows of a run, in the order of the operator database.

    `ops` are OpInfo objects. Only dtypes that the CPU supports make a row (and in `errors` those that it does not).
    Without `dtypes` and `modes` the rows are those of the main job, or all of them when `full`. Modes alone come in the
    dtypes of CHOSEN unless `full`; dtypes alone come in forward and gradient unless `full`.
    """
    wanted = modes or (MODES if full else ("forward", "gradient"))
    rows = []
    for op in ops:
        if globs and not matches(op.full_name, globs):
            continue
        for mode in MODES:
            if mode not in wanted:
                continue
            for dtype in row_dtypes(op, mode):
                if dtypes and dtype not in dtypes:
                    continue
                if not (full or dtypes) and (mode, dtype) not in CHOSEN:
                    continue
                rows.append(Row(op.full_name, dtype, mode))
    return rows


def row_dtypes(op, mode: str) -> list[str]:
    """The names of the dtypes that make a row for this operator in this mode, sorted; none when it has no such form."""
    forward, backward = _names(op.supported_dtypes("cpu")), _names(op.supported_backward_dtypes("cpu"))
    match mode:
        case "gradient":
            found = backward
        case "gradgrad":
            found = backward & set(TWICE_DIFFERENTIATED) if op.supports_gradgrad else set()
        case "forward_ad":
            found = backward & set(TWICE_DIFFERENTIATED) if op.supports_forward_ad else set()
        case "out":
            found = forward if op.supports_out else set()
        case "inplace":
            found = forward if op.get_inplace() is not None else set()
        case "views":
            found = {dtype for dtype in forward if dtype.startswith(("float", "bfloat", "complex")) and "float8" not in dtype}
        case "errors":
            found = set(DTYPES) - forward
            if op.error_inputs_func is not None and forward:
                found.add("float32" if "float32" in forward else min(forward))
        case _:
            found = forward
    return sorted(found)


def _names(dtypes) -> set[str]:
    return {str(dtype).removeprefix("torch.") for dtype in dtypes}


def parse_shard(text: str) -> tuple[int, int]:
    """Reads `i/n` with 1 <= i <= n. Raises ValueError with a sentence."""
    left, slash, right = text.partition("/")
    if not (slash and left.isdigit() and right.isdigit() and 1 <= int(left) <= int(right)):
        raise ValueError(f"{text!r} is not a shard; write i/n with 1 <= i <= n, as in 2/4")
    return int(left), int(right)


def shard(rows: list[Row], index: int, count: int) -> list[Row]:
    """The index-th of count parts (from 1): every count-th row, so that the parts are alike."""
    return rows[index - 1 :: count]


def interleave(rows: list[Row], seed: int) -> list[Row]:
    """The rows in an order whose every beginning is a fair sample: families of each level take turns, seeded inside each."""
    import random

    from . import levels

    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(f"{levels.of(row.op)}.{row.family}", []).append(row)
    keyed = []
    for name, members in sorted(families.items()):
        random.Random(f"{seed}:{name}").shuffle(members)
        keyed += [((place + 0.5) / len(members), row) for place, row in enumerate(members)]
    return [row for _, row in sorted(keyed, key=lambda pair: (pair[0], pair[1].id))]

"""Rows and their selection: which operators, dtypes and modes a run covers, and with how many samples.

A row is one operator of the database (with its variant), one dtype and one mode. This module does not
import torch: operators are passed in, dtypes are names.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase

MODES = ("forward", "gradient")

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
        """The name's first part for `linalg.svd`, `nn.functional.relu` and the like, else `torch`."""
        head, dot, rest = self.op.partition(".")
        if head == "nn":
            return "nn.functional"
        return head if dot and head in ("linalg", "fft", "special", "masked", "signal", "ops") else "torch"


def parse_id(text: str) -> tuple[Row, int | None]:
    """Reads `OP:DTYPE:MODE` or `OP:DTYPE:MODE#SAMPLE`. Raises ValueError with a sentence."""
    name, hash_, sample = text.partition("#")
    parts = name.split(":")
    if len(parts) != 3 or not all(parts) or (hash_ and not sample.isdigit()):
        raise ValueError(f"{text!r} is not a row; a row is OP:DTYPE:MODE or OP:DTYPE:MODE#SAMPLE, as in add:float32:forward#2")
    if parts[2] not in MODES:
        raise ValueError(f"{text!r} has the mode {parts[2]!r}; the modes are {', '.join(MODES)}")
    return Row(*parts), int(sample) if hash_ else None


def matches(op_name: str, globs) -> bool:
    return any(fnmatchcase(op_name, glob) for glob in globs)


def samples_for(row: Row, samples: int | None, full: bool) -> int:
    """How many samples of the row to run; ALL_SAMPLES means every one. An explicit number wins."""
    if samples is not None:
        return samples
    return ALL_SAMPLES if full else DEFAULT_SELECTION.get((row.mode, row.dtype), OTHER_SAMPLES)


def select(ops, *, globs=(), dtypes=(), modes=(), full=False) -> list[Row]:
    """The rows of a run, in the order of the operator database.

    `ops` are OpInfo objects. Only dtypes that the CPU supports make a row. Without `dtypes` and `modes` the rows are
    those of the main job, or all of them when `full`. With only one of the two given, the other is not restricted
    when `full`, and otherwise is what the main job has (for `dtypes`: forward, and gradient where there is one).
    """
    rows = []
    for op in ops:
        if globs and not matches(op.full_name, globs):
            continue
        for mode in MODES:
            if modes and mode not in modes:
                continue
            for dtype in cpu_dtypes(op, mode):
                if dtypes and dtype not in dtypes:
                    continue
                if not (full or dtypes) and (mode, dtype) not in DEFAULT_SELECTION:
                    continue
                rows.append(Row(op.full_name, dtype, mode))
    return rows


def cpu_dtypes(op, mode: str) -> list[str]:
    """The names of the dtypes that the CPU supports for this operator in this mode, sorted."""
    found = op.supported_backward_dtypes("cpu") if mode == "gradient" else op.supported_dtypes("cpu")
    return sorted(str(dtype).removeprefix("torch.") for dtype in found)


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
    """The rows in an order whose every beginning is a fair sample: families take turns, seeded inside each."""
    import random

    families: dict[str, list[Row]] = {}
    for row in rows:
        families.setdefault(row.family, []).append(row)
    keyed = []
    for name, members in sorted(families.items()):
        random.Random(f"{seed}:{name}").shuffle(members)
        keyed += [((place + 0.5) / len(members), row) for place, row in enumerate(members)]
    return [row for _, row in sorted(keyed, key=lambda pair: (pair[0], pair[1].id))]

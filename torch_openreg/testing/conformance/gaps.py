"""The gap file: rows that a device is known to fail, each with a reason.

    [[gap]]
    op = "linalg.*"                # glob over full names
    dtype = "complex64"            # (optional) glob; default: every dtype
    mode = "gradient"              # (optional) glob; default: every mode
    kind = "unsupported"           # permanent, covers the outcome `unsupported` only; or
                                   # "expected_failure": temporary, covers every failing outcome
    reason = "why, and until when"

An entry covers every row that it matches: a covered row that passes is an unexpected pass.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .result import RowResult

try:
    import tomllib
except ModuleNotFoundError:  # CAN REMOVE when Python >= 3.11
    import tomli as tomllib

KINDS = ("unsupported", "expected_failure")
KEYS = {"op", "dtype", "mode", "kind", "reason"}
SHIPPED = Path(__file__).parent / "gaps"


class GapFileError(ValueError):
    """The gap file cannot be used; the message names the file, the entry and the rule."""


@dataclass(frozen=True)
class Gap:
    op: str
    kind: str
    reason: str
    dtype: str = "*"
    mode: str = "*"

    def matches(self, result: RowResult) -> bool:
        return (
            fnmatchcase(result.op, self.op)
            and fnmatchcase(result.dtype, self.dtype)
            and fnmatchcase(result.mode, self.mode)
        )

    def allows(self, result: RowResult) -> bool:
        return result.outcome == "unsupported" if self.kind == "unsupported" else result.failing


def default_file(device: str) -> Path | None:
    """The gap file that ships for a device type, or None."""
    path = SHIPPED / f"{device.partition(':')[0]}.toml"
    return path if path.exists() else None


def read(path: Path) -> list[Gap]:
    """Reads a gap file; raises GapFileError."""
    try:
        document = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise GapFileError(f"{path}: cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise GapFileError(f"{path}: is not TOML: {error}") from error
    if set(document) - {"gap"} or not isinstance(document.get("gap", []), list):
        raise GapFileError(f"{path}: has only [[gap]] entries, found {', '.join(sorted(document))}")
    return [_entry(path, number, entry) for number, entry in enumerate(document.get("gap", []), 1)]


def _entry(path: Path, number: int, entry: dict) -> Gap:
    where = f"{path}: entry {number} ({entry.get('op', 'no op')})"
    if unknown := set(entry) - KEYS:
        raise GapFileError(f"{where}: unknown key {', '.join(sorted(unknown))}; the keys are {', '.join(sorted(KEYS))}")
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise GapFileError(f"{where}: {key} must be a text that is not empty")
    for key in ("op", "kind", "reason"):
        if key not in entry:
            raise GapFileError(f"{where}: has no {key}")
    if entry["kind"] not in KINDS:
        raise GapFileError(f"{where}: kind is {entry['kind']!r}; it is one of {', '.join(KINDS)}")
    return Gap(**entry)


def apply(gaps: list[Gap], result: RowResult) -> RowResult:
    """Marks the result as covered or as an unexpected pass, by the first entry that matches it."""
    for gap in gaps:
        if gap.matches(result):
            result.gap_reason = gap.reason
            if gap.allows(result):
                result.gap = "covered"
            elif result.outcome == "pass":
                result.gap = "unexpected pass"
            break
    return result

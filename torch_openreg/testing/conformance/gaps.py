"""The gap file: rows that a device is known to fail, each with a reason.

    [[gap]]
    op = "linalg.*"                # glob over full names; or `module`, `optim`, `check` or `model`: the same without the database's prefix
    dtype = "complex64"            # (optional) glob; default: every dtype
    mode = "gradient"              # (optional) glob; default: every mode
    kind = "unsupported"           # permanent, covers the outcome `unsupported` only; or
                                   # "expected_failure": temporary, covers every failing outcome
    reason = "why, and until when"

    [[gap]]
    test = "TestCommon.test_out_*" # a test of PyTorch's own files, as `openreg conformance testfile` names it, and nothing else with it
    kind = "expected_failure"
    reason = "..."

An entry covers every row that it matches, whatever the order of the entries: a failing row is covered when one of them allows its outcome,
and a row that an entry matches and that passes is an unexpected pass.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from . import databases
from .result import RowResult

try:
    import tomllib
except ModuleNotFoundError:  # CAN REMOVE when Python >= 3.11
    import tomli as tomllib

KINDS = ("unsupported", "expected_failure")
PREFIXES = {"op": "", "module": "module.", "optim": "optim.", "check": "check.", "model": "model."}  # what an entry is about -> how its rows begin
TEST = "test"
KEYS = {*PREFIXES, TEST, "dtype", "mode", "kind", "reason"}
SHIPPED = Path(__file__).parent / "gaps"


class GapFileError(ValueError):
    """The gap file cannot be used; the message names the file, the entry and the rule."""


@dataclass(frozen=True, order=True)
class Gap:
    """One entry. op: glob over full row names, empty for an entry about a test of PyTorch's files."""

    op: str
    dtype: str = "*"
    mode: str = "*"
    test: str = ""
    kind: str = ""
    reason: str = ""

    def matches(self, result: RowResult) -> bool:
        return (
            bool(self.op)
            and fnmatchcase(result.op, self.op)
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
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise GapFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GapFileError(f"{path}: is not UTF-8, as TOML is: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise GapFileError(f"{path}: is not TOML: {error}") from error
    if isinstance(document.get("gap"), dict):
        raise GapFileError(f"{path}: [gap] begins one table; write [[gap]] with two brackets before each entry")
    if set(document) - {"gap"} or not isinstance(document.get("gap", []), list):
        raise GapFileError(f"{path}: has only [[gap]] entries, found {', '.join(sorted(document))}")
    return [_entry(path, number, entry) for number, entry in enumerate(document.get("gap", []), 1)]


def _entry(path: Path, number: int, entry: dict) -> Gap:
    if not isinstance(entry, dict):
        raise GapFileError(f"{path}: entry {number} is {entry!r}; write [[gap]] with two brackets before each entry")
    subjects = [key for key in (*PREFIXES, TEST) if key in entry]
    where = f"{path}: entry {number} ({entry[subjects[0]] if subjects else 'no op'})"
    if unknown := set(entry) - KEYS:
        raise GapFileError(f"{where}: unknown key {', '.join(sorted(unknown))}; the keys are {', '.join(sorted(KEYS))}")
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise GapFileError(f"{where}: {key} must be a text that is not empty")
    if not subjects:
        raise GapFileError(f"{where}: has no op, and no {', '.join(key for key in (*PREFIXES, TEST) if key != 'op')} either")
    if len(subjects) > 1:
        raise GapFileError(f"{where}: has {' and '.join(subjects)}; an entry is about one of them")
    for key in ("kind", "reason"):
        if key not in entry:
            raise GapFileError(f"{where}: has no {key}")
    if entry["kind"] not in KINDS:
        raise GapFileError(f"{where}: kind is {entry['kind']!r}; it is one of {', '.join(KINDS)}")
    for key, known in (("dtype", databases.DTYPES), ("mode", databases.modes_of(databases.DATABASES))):
        plain = key in entry and not any(sign in entry[key] for sign in "*?[")
        if plain and (problem := databases.unknown(key, entry[key], known)):
            raise GapFileError(f"{where}: {problem}")
    subject, rest = subjects[0], {key: value for key, value in entry.items() if key not in subjects}
    if subject != TEST:
        return Gap(PREFIXES[subject] + entry[subject], **rest)
    if set(rest) != {"kind", "reason"}:
        raise GapFileError(f"{where}: the entry of a test has a kind and a reason, no dtype and no mode; they are in the test's name")
    return Gap("", test=entry[TEST], **rest)


def apply(gaps: list[Gap], result: RowResult) -> RowResult:
    """Marks the result as covered or as an unexpected pass."""
    matching = [gap for gap in gaps if gap.matches(result)]
    allowing = [gap for gap in matching if gap.allows(result)]
    if allowing or (matching and result.outcome == "pass"):
        result.gap = "covered" if allowing else "unexpected pass"
        result.gap_reason = (allowing or matching)[0].reason
    return result

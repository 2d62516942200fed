"""DIR/results.jsonl: one RowResult per line, written as rows finish and read back by everything else."""

import json
import os
from pathlib import Path

from .. import levels
from ..result import RowResult
from ..rows import parse_id

NAME = "results.jsonl"


class ResultsError(ValueError):
    """A file of results cannot be used; the message names the file and what is wrong."""


class ResultFile:
    """The file being written. A context manager. `kept`: results of an earlier part of the run, which stay."""

    def __init__(self, directory: Path, kept=()):
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / NAME
        begun = self.path.with_suffix(".begun")  # until it is whole, the old file stays: a kill loses nothing
        begun.write_text("".join(map(_line, kept)))
        os.replace(begun, self.path)
        self.file = self.path.open("a")

    def add(self, result: RowResult) -> None:
        self.file.write(_line(result))
        self.file.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def _line(result: RowResult) -> str:
    return json.dumps(result.to_json()) + "\n"


def read_results(path: Path) -> list[RowResult]:
    """The rows of a file, or of results.jsonl in a folder; of a row that is there twice, the last. Raises ResultsError.

    A last line that is not whole is left out: the run was killed while it was written.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        lines = path.read_text().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows = {}
    for number, line in enumerate(lines, 1):
        try:
            result = RowResult.from_json(json.loads(line))
        except (ValueError, TypeError, AttributeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ResultsError(f"{path}: line {number} is not a row of a conformance run") from error
        try:
            parse_id(result.id)
            levels.of(result.op)
        except (ValueError, KeyError) as error:
            raise ResultsError(f"{path}: line {number}: this version of the kit has no rows like {result.id}") from error
        rows[result.id] = result
    return list(rows.values())

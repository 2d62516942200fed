"""Where a command will write, looked at before its work begins, so that nothing is lost at its end."""

import os
import sys
from pathlib import Path


def refused(command: str, path: Path | None) -> bool:
    """Whether no file can be written at the path, which is then said on stderr. None is no file, and fine."""
    reason = "" if path is None else _reason(Path(path))
    if reason:
        print(f"{command}: {reason}", file=sys.stderr)
    return bool(reason)


def _reason(path: Path) -> str:
    folder = path.absolute().parent
    if path.is_dir():
        return f"{path} is a folder, not the name of a file to write"
    if folder.exists() and not folder.is_dir():
        return f"{folder} is not a directory, so {path.name} cannot be written there"
    if not folder.is_dir():
        return f"there is no folder {folder} to write {path.name} in"
    if not os.access(path if path.exists() else folder, os.W_OK):
        return f"{path} cannot be written: permission denied"
    return ""

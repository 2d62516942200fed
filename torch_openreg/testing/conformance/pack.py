"""Model packs: the distinct operator calls of a program, with shapes, strides and dtypes, as a file. This module does not import torch.

A pack is JSON lines, gzipped when the name ends in `.gz`: a header, then a line per distinct call, sorted. A call has `op` (as in
aten.addmm.default), `count`, `args` and `kwargs`. Numbers, texts, booleans, null and lists stand for themselves, and an object for:

    {"tensor": "float32", "size": [2, 3]}   and, where they apply: "stride"; "offset", in elements; "storage", its least number of
                                            elements; "memory", a number that tensors on one storage share; "host", not on the device;
                                            "low" and "high", the range of integers; "low": 0 for floats of which none was negative;
                                            "distinct" and "ascending", of integers; "besides", their few negative values, as -100
                                            for labels to ignore; "all", what every element of a mask was
    {"float": "inf"}  {"complex": [0, 1]}  {"dtype": "float32"}  {"layout": "strided"}  {"memory_format": "channels_last"}  {"device": true}
"""

import gzip
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from .dependencies import dispatcher_name

FORMAT = 1
SHIPPED = Path(__file__).parent / "packs"
# How a reader draws values; written into every header, so that a pack explains itself.
DRAWN = {
    "float": "normal; absolute values where low is 0",
    "integer": "uniform from low to high; without repetition where distinct; sorted where ascending; every eighth one of those besides",
    "bool": "half of them true, or all as given",
}


class PackError(ValueError):
    """The pack cannot be used; the message names the file and the rule."""


@dataclass
class Pack:
    """A pack in memory. calls: one dictionary each, as in the file, sorted. recorded: COUNT of calls, repetitions included.

    left_out: reason -> COUNT of calls that a pack cannot hold.
    """

    name: str
    torch: str
    made_from: str
    calls: list[dict]
    recorded: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def operators(self) -> set[str]:
        """The operators that the program calls, as in aten::addmm."""
        return {dispatcher_name(call["op"]) for call in self.calls}

    @property
    def dtypes(self) -> set[str]:
        """The dtypes of the tensors that it passes, as in float32."""

        def found(value):
            if isinstance(value, dict):
                return {value["tensor"]} if "tensor" in value else set()
            return set().union(*map(found, value)) if isinstance(value, list) else set()

        return set().union(*(found([call["args"], *call["kwargs"].values()]) for call in self.calls))


def name_for(path: Path) -> str:
    """The name of the pack in a file: the file's, without suffixes. Raises PackError when rows cannot have it in theirs."""
    name = Path(path).name.removesuffix(".gz").removesuffix(".jsonl")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise PackError(f"{path}: a pack's file is NAME.jsonl or NAME.jsonl.gz, and NAME has letters, digits, - and _ only")
    return name


def write(pack: Pack, path: Path) -> None:
    """Writes the file; the same calls give the same bytes."""
    header = {"pack": pack.name, "format": FORMAT, "torch": pack.torch, "made_from": pack.made_from, "recorded": pack.recorded,
              "distinct": len(pack.calls), "left_out": dict(sorted(pack.left_out.items())), "values": DRAWN}  # fmt: skip
    lines = [json.dumps(header), *sorted(json.dumps(call, separators=(",", ":")) for call in pack.calls)]
    data = ("\n".join(lines) + "\n").encode()
    Path(path).write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


def read(path: Path) -> Pack:
    """Reads the file; raises PackError."""
    path = Path(path)
    name = name_for(path)
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.name.endswith(".gz") else data).decode()
        header, *calls = [json.loads(line) for line in text.splitlines()]
        if header["format"] != FORMAT:
            raise PackError(f"{path}: has the format {header['format']}; this version reads format {FORMAT}")
        for call in calls:
            call["op"], call["count"], call["args"], call["kwargs"]
        return Pack(name, header["torch"], header["made_from"], calls, header["recorded"], header["left_out"])
    except OSError as error:
        raise PackError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"{path}: is not a model pack ({type(error).__name__}: {error})") from error


def shipped() -> dict[str, Path]:
    """The packs of this package, by name."""
    return {name_for(path): path for path in sorted(SHIPPED.glob("*.jsonl*"))}


def checked(texts) -> tuple[str, ...]:
    """The packs that are given as names or paths: names of those that ship, whole paths of others.

    Raises PackError, also for one that cannot be read and for two of one name.
    """
    found: dict[str, Path] = {}
    for text in texts:
        path = find(text)
        if found.setdefault(name := read(path).name, path) != path:
            raise PackError(f"{path}: {found[name]} is named {name} too, so that their rows could not be told apart")
    return tuple(name if path == shipped().get(name) else str(path) for name, path in found.items())


def chosen(texts=()) -> list[Pack]:
    """The packs with these names or paths, or all that ship. Raises PackError."""
    return [read(find(text)) for text in texts or shipped()]


def find(text: str) -> Path:
    """The file of a shipped pack's name, or of a path. Raises PackError."""
    known = shipped()
    if text in known:
        return known[text]
    if not Path(text).is_file():
        raise PackError(f"{text!r} is neither a file nor a pack of this package; those are {', '.join(known)}")
    name_for(Path(text))
    return Path(text).resolve()

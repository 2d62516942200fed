"""Which kernels the rows of the kit need, from `dependencies.json` (tests/conformance/make_dependencies.py writes it). No torch here.

Operators are named as the dispatcher names them: aten::add.out, aten::addmm. An operator that PyTorch writes in terms of others needs no
kernel of its own; a device may have one nevertheless, and then the others are not needed for it.
"""

import functools
import json
from pathlib import Path

FILE = Path(__file__).parent / "dependencies.json"
DIFFERENTIATED = ("gradient", "gradgrad", "forward_ad", "func")


@functools.cache
def _document() -> dict:
    return json.loads(FILE.read_text())


def composites() -> dict[str, list[str]]:
    """Operators that PyTorch writes in terms of others -> those."""
    return _document()["composites"]


def rows() -> dict[str, dict[str, list[str]]]:
    """A row's name -> what it calls: `forward`, and what its backward calls besides, `gradient`."""
    return _document()["rows"]


def dispatcher_name(text: str) -> str:
    """aten::addmm for aten.addmm.default; aten::add.out for aten.add.out."""
    return text.replace(".", "::", 1).removesuffix(".default")


def called(row_name: str, mode: str) -> tuple[str, ...]:
    """The operators that a row calls, composite ones among them; none where the table does not say."""
    if row_name.startswith("model."):
        return (dispatcher_name(row_name.split(".", 2)[2]),)
    found = rows().get(row_name) or rows().get(row_name.removeprefix("_refs."), {})
    return (*found.get("forward", ()), *(found.get("gradient", ()) if mode in DIFFERENTIATED or mode.endswith("gradient") else ()))


def own(row_name: str) -> tuple[str, ...]:
    """Those of the operators that a row calls forward that have its name: aten::linalg_qr for linalg.qr."""
    parts = row_name.split(".")
    names = {parts[-1], "_".join(parts), "_" + "_".join(parts), "_" + parts[-1]}
    return tuple(name for name in called(row_name, "forward") if row_name.startswith("model.") or packet(name) in names)


def packet(name: str) -> str:
    """The name without namespace and overload: add for aten::add.out."""
    return name.removeprefix("aten::").partition(".")[0]


class Kernels:
    """The kernels that calls need on a device that has some already.

    present: names of kernels that the device has registered. `needed_by` is cached: make one for each question.
    """

    def __init__(self, present=()):
        self.present = frozenset(present)
        self._found: dict[str, frozenset[str]] = {}

    def needed_by(self, operator: str) -> frozenset[str]:
        """The kernels that a call of the operator ends in, those that the device has included."""
        if operator not in self._found:
            self._found[operator] = frozenset((operator,))  # also what a circle ends in
            parts = composites().get(operator)
            if parts is not None and operator not in self.present:
                self._found[operator] = frozenset().union(*(self.needed_by(part) for part in parts))
        return self._found[operator]

    def needed_by_row(self, row_name: str, mode: str) -> frozenset[str]:
        return frozenset().union(*(self.needed_by(operator) for operator in called(row_name, mode)))


def reached_from(operator: str, kernels: Kernels | None = None) -> list[str]:
    """The names of rows that need the operator, directly or through others, sorted."""
    kernels = kernels or Kernels((operator,))
    return sorted(name for name in rows() if operator in kernels.needed_by_row(name, "gradient") or operator in called(name, "gradient"))

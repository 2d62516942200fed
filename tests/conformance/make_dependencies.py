"""Writes `torch_openreg/testing/conformance/dependencies.json`: which ATen operators the rows of operators and modules reach, on the CPU.

    python tests/conformance/make_dependencies.py

`rows`: a row's name -> what its calls reach below CompositeImplicitAutograd, `forward`, and what a backward reaches besides, `gradient`.
`composites`: an operator that PyTorch itself writes in terms of others (CompositeExplicitAutograd, and the functional and in-place forms of
structured operators) -> those others. An operator that is in no key of `composites` needs a kernel from each device.
Attention is taken in its mathematical form, oneDNN is off, and convolutions are those of a device that is not PyTorch's own, so that what is
reached is what any device sees.
"""

import json
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from torch_openreg.testing.conformance import databases, dependencies  # noqa: E402
from torch_openreg.testing.conformance import samples as sampling  # noqa: E402

SAMPLES = 12
KEYS = ("CompositeImplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeExplicitAutograd")
# Composite kernels that choose by device, and what they choose for one of somebody else's.
CHOSEN = {
    "aten::_convolution": {"aten::convolution_overrideable"},
    "aten::_unsafe_view": {"aten::view"},
    "aten::convolution_backward": {"aten::convolution_backward_overrideable"},
    "aten::copy_": {"aten::_copy_from"},
    "aten::scalar_tensor": {"aten::empty.memory_format", "aten::fill_.Scalar"},
}


class Reach(TorchDispatchMode):
    """Notes the operators that calls reach, and what is behind those that PyTorch writes in terms of others."""

    def __init__(self, composites: dict[str, set[str]]):
        super().__init__()
        self.reached: set[str] = set()
        self.composites = composites
        self.inside: list[str] = []  # the operators whose composite kernels run

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        key = next((key for key in KEYS if torch._C._dispatch_has_kernel_for_dispatch_key(name, key)), None)
        if key == "CompositeImplicitAutograd":  # what it calls counts, as if the caller did
            with self:
                return function._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **(kwargs or {}))
        (self.composites[self.inside[-1]] if self.inside else self.reached).add(name)
        if name in CHOSEN:
            self.composites[name] = CHOSEN[name]
        if key is None or name in self.inside or name in CHOSEN:
            return function(*args, **(kwargs or {}))
        self.inside.append(name)
        self.composites.setdefault(name, set())
        try:
            with self:
                return function._op_dk(getattr(torch._C.DispatchKey, key), *args, **(kwargs or {}))
        finally:
            self.inside.pop()


def reach(database, entry, row_name: str, mode: str, composites) -> set[str]:
    """What the samples of a row in float32, or else its first dtype, reach in a mode. Samples that raise count as far as they got."""
    module = database.load()
    names = module.dtypes(entry, mode)
    if not names:
        return set()
    dtype = getattr(torch, "float32" if "float32" in names else names[0])
    watch = Reach(composites)
    try:
        drawn = module.draw(entry, dtype, mode, sampling.row_seed(0, row_name))
    except Exception as error:
        print(f"{row_name}: {error}")
        return set()
    for index in sampling.choose(len(drawn), SAMPLES):
        sample = sampling.copy_sample(drawn[index], torch.device("cpu"))
        case = OneSided(entry, drawn[index], sample, watch)
        try:
            module.RUNNERS[mode](case)
        except Exception as error:
            case.problem = error
    return watch.reached


class OneSided:
    """A case that runs a form once, on the CPU, under the watch."""

    def __init__(self, info, sample, copy, watch):
        self.info, self.sample, self.copy, self.watch, self.seed, self.stage = info, sample, copy, watch, 0, lambda name: None

    def agree(self, form, *_, sample=None, **__):
        from torch_openreg.testing.conformance.calls import Side

        with self.watch:
            form(sampling.copy_sample(sample, torch.device("cpu")) if sample is not None else self.copy, Side(torch.device("cpu"), self.stage))


def main() -> None:
    composites: dict[str, set[str]] = {}
    rows = {}
    with warnings.catch_warnings(), torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        warnings.simplefilter("ignore")
        for name in ("op", "module"):
            database = databases.DATABASES[name]
            for row_name, entry in database.load().entries().items():
                forward = reach(database, entry, row_name, "forward", composites)
                gradient = reach(database, entry, row_name, "gradient", composites) - forward - {"aten::randn.generator"}  # the kit's, for cotangents
                rows[row_name] = {"forward": sorted(forward)} | ({"gradient": sorted(gradient)} if gradient else {})
    write(composites, rows)


def write(composites, rows) -> None:
    """The file: a line for each key."""
    composites = {name: sorted(set(found) - {name}) for name, found in sorted(composites.items())}
    document = {"torch": torch.__version__.partition("+")[0], "composites": composites, "rows": rows}
    text = json.dumps(document, separators=(",", ":")).replace('],"', '],\n"').replace('},"', '},\n"')
    dependencies.FILE.write_text(text + "\n")
    print(f"{len(rows)} rows, {len(composites)} composites, {len(text) >> 10} KiB")


if __name__ == "__main__":
    main()

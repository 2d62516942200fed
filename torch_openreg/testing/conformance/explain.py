"""What an operator is and what a device needs for it: `openreg conformance explain`, in a process of its own, on any device.

Says what PyTorch knows of the operator (schema, composite or not, autograd, decomposition), which kernels are registered, what of the kit's
tables reaches it, how its rows fared in a run, and what is left to do. Exit status 0, or 2 when there is no such operator or device.
"""

import json
import sys
from collections import Counter
from pathlib import Path

from . import dependencies
from . import pack as packs

NAMES_SHOWN = 12
ROWS_SHOWN = 5
_KINDS = {
    "CompositeImplicitAutograd": "composite: PyTorch calls its parts, also for autograd; the device never sees it",
    "CompositeExplicitAutograd": "composite with a derivative of its own: without a kernel of the device PyTorch calls its parts",
    "CompositeExplicitAutogradNonFunctional": "structured: the kernel of its out= form serves it",
}


def overloads(name: str) -> list[str]:
    """The dispatcher's names of an operator: itself when it names an overload, else all of its overloads. Imports torch."""
    import torch

    name = dependencies.dispatcher_name(name) if "::" not in name and name.startswith("aten.") else name.removesuffix(".default")
    name = name if "::" in name else f"aten::{name}"
    known = torch._C._dispatch_get_all_op_names()
    exact = [other for other in known if other == name]
    return exact + sorted(other for other in known if other.startswith(f"{name}."))


def explain(name: str, device, results=(), pack_files=()) -> str:
    """The text about one overload, as the dispatcher names it. device: a torch.device. results: RowResults of a run on it."""
    import torch

    key = torch._C._dispatch_key_for_device(device.type)
    has = {other: torch._C._dispatch_has_kernel_for_dispatch_key(name, other) for other in ("CPU", "CUDA", "Meta", "Autograd", key, *_KINDS)}
    kind = next((kind for kind in _KINDS if has[kind]), "")
    fallback = torch._C._dispatch_has_backend_fallback(getattr(torch._C.DispatchKey, key))
    table = dependencies.Kernels(torch._C._dispatch_get_registrations_for_dispatch_key(key))
    rows = _rows(name, results)
    facts = [
        ("schema", str(_overload(name)._schema)),
        ("kind", _KINDS.get(kind, "needs a kernel from each device")),
        ("kernels", _kernels(has, key, device)),
        ("autograd", _autograd(has, kind)),
        ("decomposition", _decomposition(name)),
        ("parts", _some(dependencies.composites().get(name) or _parts_of_row(name))),
        *_reached(name, pack_files),
        *_row_facts(name, rows),
        ("to do", _fix(rows, device) if has[key] and any(row.failing for row in rows) else _to_do(name, device, key, has, kind, fallback, table)),
    ]
    width = max(len(title) for title, _ in facts)
    return "\n".join([name, *(f"  {title:<{width}}  {text}" for title, text in facts if text)])


def _overload(name: str):
    import torch

    space, _, rest = name.partition("::")
    packet, _, overload = rest.partition(".")
    return getattr(getattr(getattr(torch.ops, space), packet), overload or "default")


def _kernels(has, key: str, device) -> str:
    import torch

    found = {"CPU": has["CPU"], "CUDA": has["CUDA"], "Meta": has["Meta"], key: has[key]}
    words = [f"{name}{f' ({device.type})' if name == key and name.lower() != device.type else ''} {'yes' if there else 'no'}" for name, there in found.items()]
    return ", ".join(words) + ("" if torch.backends.cuda.is_built() else "; this build of torch is without CUDA")


def _parts_of_row(name: str) -> tuple[str, ...]:
    """What the row of a composite operator calls: that of linalg.norm for aten::linalg_norm."""
    wanted = dependencies.packet(name)
    row = next((row for row in dependencies.rows() if row.replace(".", "_") == wanted or row.rpartition(".")[2] == wanted), "")
    return dependencies.called(row, "forward")


def _autograd(has, kind: str) -> str:
    if kind == "CompositeImplicitAutograd":
        return "that of its parts" if not has["CPU"] else "that of its parts, where no kernel of the device takes their place"
    return "PyTorch's, for every device: a kernel computes values only" if has["Autograd"] else "none"


def _decomposition(name: str) -> str:
    from torch._decomp import core_aten_decompositions, decomposition_table

    overload = _overload(name)
    if overload not in decomposition_table:
        return "none"
    return "in torch._decomp" + (", taken by compilers (core ATen)" if overload in core_aten_decompositions() else "")


def _reached(name: str, pack_files):
    """What of the tables calls the operator, itself or through others."""
    names = dependencies.reached_from(name)
    operators = [row for row in names if not row.startswith("module.")]
    modules = [row.removeprefix("module.") for row in names if row.startswith("module.")]
    table, found = dependencies.Kernels((name,)), []
    for pack in packs.chosen(pack_files):
        calls = [call["count"] for call in pack.calls if _needs(dependencies.dispatcher_name(call["op"]), name, table)]
        if calls:
            found.append(f"{pack.name} ({sum(calls)} calls)")
    yield f"operators ({len(operators)})", _some(operators) or "none in op_db"
    yield f"modules ({len(modules)})", _some(modules)
    yield f"models ({len(found)})", ", ".join(found) or "none of the packs"


def _needs(operator: str, name: str, table) -> bool:
    return operator == name or name in table.needed_by(operator)


def _rows(name: str, results) -> list:
    """The results of rows that need the operator; first the failing ones that say its name, then the other failing ones."""
    table = dependencies.Kernels((name,))
    rows = [
        result for result in results
        if name in result.message or name in dependencies.called(result.op, result.mode) or name in table.needed_by_row(result.op, result.mode)
    ]  # fmt: skip
    return sorted(rows, key=lambda result: (not result.failing, name not in result.message))


def _row_facts(name: str, rows):
    if not rows:
        return
    counts = Counter(result.outcome for result in rows)
    yield f"rows ({len(rows)})", ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    for result in [row for row in rows if row.failing][:ROWS_SHOWN]:
        yield "", f"{result.id}: {result.sentence[:160]}"


def _fix(rows, device) -> str:
    """What to do where there is a kernel, and rows fail."""
    example = f"openreg conformance repro '{rows[0].id}' --device {device.type}"
    return f"{device.type} has a kernel, and {sum(row.failing for row in rows)} rows that need it fail; `{example}` shows the first"


def _to_do(name: str, device, key: str, has, kind: str, fallback: bool, table) -> str:
    if device.type in ("cpu", "meta") or has[key]:
        return f"nothing: {device.type} has a kernel" if has[key] else "nothing"
    if kind == "CompositeImplicitAutograd":
        return "nothing: PyTorch calls its parts"
    missing = sorted(table.needed_by(name) - table.present - {name})
    if kind and name in dependencies.composites() and not missing:
        return f"nothing: {device.type} has a kernel for every part that needs one"
    if fallback:
        return f"nothing for a right result: {device.type} has a fallback for every operator. A kernel makes it fast:" + _registration(name, key)
    if kind and missing:
        return f"kernels for {_some(missing)}; `explain` tells about each"
    if kind:
        return "nothing: it works as soon as its parts do"
    return f"register a kernel at {key}:" + _registration(name, key)


def _registration(name: str, key: str) -> str:
    """How a C++ kernel of the operator is registered."""
    from torchgen import local
    from torchgen.api.types import DispatcherSignature
    from torchgen.model import FunctionSchema

    space, _, rest = name.partition("::")
    schema = FunctionSchema.parse(str(_overload(name)._schema).removeprefix(f"{space}::"))
    function = rest.replace(".", "_")
    with local.parametrize(use_const_ref_for_mutable_tensors=False, use_ilistref_for_tensor_lists=False):
        declared = DispatcherSignature.from_schema(schema).decl(name=function)
    return f'\n      {declared};\n      TORCH_LIBRARY_IMPL({space}, {key}, m) {{ m.impl("{rest}", {function}); }}'


def _some(names) -> str:
    names = list(names)
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")


def main(config) -> int:
    from . import report
    from .device import UnusableDevice, load

    try:
        device = load(config["device"], config["module"])
    except UnusableDevice as error:
        print(error, file=sys.stderr)
        return 2
    found = overloads(config["operator"])
    if not found:
        print(f"PyTorch has no operator {config['operator']}; names are as in aten::add.out, aten::addmm", file=sys.stderr)
        return 2
    results = report.read_results(Path(config["results"])) if config["results"] else ()
    results = [result for result in results if result.device.partition(":")[0] == device.type]  # the latest run may be another device's
    print("\n\n".join(explain(name, device, results, config["packs"]) for name in found))
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

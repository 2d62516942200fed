"""Writes the tables of docs/api.md: every public name of torch.xpu and of torch.cuda, and what torch.openreg has for it.

    python tests/repo/generate_api.py

Needs the built package.
"""

import inspect
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
BEGIN, END = "<!-- api:begin -->", "<!-- api:end -->"
FAMILIES = ("memory", "random", "graphs", "amp")  # modules with lists of their own


def public_names(module):
    """(path from the module, object) of what torch.xpu or torch.cuda offers: its list, and those of its families."""
    found = {name: getattr(module, name) for name in module.__all__}
    for family in FAMILIES:
        members = getattr(module, family, None)
        if members is not None:
            found.update({f"{family}.{name}": getattr(members, name) for name in members.__all__ if name not in found})
    return sorted(found.items())


def find(path):
    """The object behind a path under torch.openreg, or None."""
    import torch

    found = torch.openreg
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def with_table(text: str) -> str:
    """The page with the present tables."""
    import torch
    import torch_openreg

    lines = []
    for module in (torch.xpu, torch.cuda):
        names = public_names(module)
        rows, same, gaps = [], 0, 0
        for path, _ in names:
            full = f"{module.__name__}.{path}"
            if full in torch_openreg.api_gaps:
                gaps += 1
                rows.append(f"| `{full}` | none | {torch_openreg.api_gaps[full]} |")
            elif full in torch_openreg.api_names:
                rows.append(f"| `{full}` | `{torch_openreg.api_names[full]}` | the name here |")
            else:
                same += 1
        lines += ["", f"Of {len(names)} names of `{module.__name__}`, {same} have the same name here, {len(rows) - gaps} another one, and {gaps} do not exist.", ""]
        lines += ["| name | here | |", "|---|---|---|", *rows]
    own = sorted(name for name in torch.openreg.__all__ if not hasattr(torch.cuda, name) and not hasattr(torch.xpu, name))
    lines += ["", "Names of `torch.openreg` that neither has: " + ", ".join(f"`{name}`" for name in own) + "."]
    head, rest = text.split(BEGIN)
    return "\n".join([f"{head}{BEGIN}", *lines, "", END]) + rest.split(END)[1]


def parameters(function, device):
    """Names and kinds of the parameters, with the device's own name taken out; None for what has no signature."""
    try:
        found = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    return [(name.replace(device, "device_type"), parameter.kind, parameter.default is parameter.empty) for name, parameter in found.parameters.items()]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

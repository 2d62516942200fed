"""Writes the table of allocator settings into docs/memory.md from the list that the allocator itself has.

    python tests/repo/generate_settings.py

Needs the built package.
"""

from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "memory.md"
BEGIN, END = "<!-- settings:begin -->", "<!-- settings:end -->"


def with_table(text: str) -> str:
    """The page with the present table."""
    import torch_openreg  # noqa: F401
    from torch_openreg import _C

    lines = ["| key | default | meaning |", "|---|---|---|"]
    lines += [f"| `{key}` | {standard} | {meaning} |" for key, standard, meaning in _C.allocator_settings()]
    head, rest = text.split(BEGIN)
    return "\n".join([f"{head}{BEGIN}", "", *lines, "", END]) + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))

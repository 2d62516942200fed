"""Writes the tables of docs/conformance-checks.md from the levels and the checks themselves.

    python tests/repo/generate_checks.py

Needs torch, and no device.
"""

from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "conformance-checks.md"
LEVELS = "<!-- levels:begin -->", "<!-- levels:end -->"
CHECKS = "<!-- checks:begin -->", "<!-- checks:end -->"


def with_tables(text: str) -> str:
    """The page with the present tables."""
    return _between(_between(text, LEVELS, _levels()), CHECKS, _checks())


def _between(text: str, marks: tuple[str, str], lines: list[str]) -> str:
    head, rest = text.split(marks[0])
    return "\n".join([f"{head}{marks[0]}", "", *lines, "", marks[1]]) + rest.split(marks[1])[1]


def _levels() -> list[str]:
    from torch_openreg.testing.conformance import checks, levels

    counts = {name: sum(levels.of(check) == name for check in checks.entries()) for name in levels.LEVELS}
    lines = ["| level | what | checks | rows of databases |", "|---|---|---|---|"]
    for name, level in levels.LEVELS.items():
        databases = ", ".join(f"`{database}`" for database in level.databases)
        lines.append(f"| {name} | {level.title} | {counts[name] or ''} | {databases} |")
    return lines


def _checks() -> list[str]:
    from torch_openreg.testing.conformance import checks, levels

    entries, lines = checks.entries().values(), []
    for name, level in levels.LEVELS.items():
        if not level.areas:
            continue
        lines += [*([""] if lines else []), f"### {name}: {level.title}", "", "| check | rule |", "|---|---|"]
        lines += [f"| `{check.name.removeprefix('check.')}` | {check.rule.replace('|', chr(92) + '|')} |" for check in entries if levels.of(check.name) == name]
    return lines


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))

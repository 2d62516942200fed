"""Failures by cause: failing rows that say the same, and the command that shows one of them again."""

import functools
import re

from ..result import RowResult


def failure_groups(results) -> list[tuple[str, list[RowResult]]]:
    """Failing rows that no gap covers, grouped by outcome and message with numbers and names left out, largest first."""
    groups: dict[str, list[RowResult]] = {}
    for result in results:
        if result.failing and result.gap != "covered":
            groups.setdefault(cause(result), []).append(result)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def cause(result: RowResult) -> str:
    """The outcome and the message without what differs between rows of one cause."""
    return f"{result.outcome}: {_shape(result.message)}"


@functools.lru_cache(maxsize=10_000)
def _shape(message: str) -> str:
    text = re.sub(r"0x[0-9a-fA-F]+", "ADDRESS", message)
    text = re.sub(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?%?", "N", text)
    return re.sub(r"(, N)+", ", N", text)[:160]


def repro_command(result: RowResult, options: str) -> str:
    sample = f"#{result.sample}" if result.sample is not None else ""
    return f"openreg conformance repro '{result.id}{sample}' {options}".rstrip()

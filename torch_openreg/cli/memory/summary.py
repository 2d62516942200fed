"""The summary of a snapshot in the terminal."""

from __future__ import annotations

from typing import Any


def size(value: float) -> str:
    """Bytes for people: 512 B, 3.0 MiB."""
    if abs(value) < 1024:
        return f"{value:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if abs(value) < 1024:
            break
    else:
        value, unit = value / 1024, "TiB"
    return f"{value:.1f} {unit}"


def text(facts: dict[str, Any], top: int) -> str:
    """The text for a result of `report.build`; tables have at most `top` lines and say what they leave out."""
    if not facts["devices"]:
        return "The snapshot is empty: no device had memory, and no event was recorded."
    return "\n\n".join(_device(device, facts, top) for device in facts["devices"])


def _device(device: dict[str, Any], facts: dict[str, Any], top: int) -> str:
    totals = device["totals"]
    lines = [
        f"device {device['index']}",
        f"  reserved   {size(totals['reserved']):>11}   in {_count(totals['segments'], 'segment')}",
        f"  allocated  {size(totals['allocated']):>11}   in {_count(totals['blocks'], 'block')}, {size(totals['rounding'])} of it rounding",
        f"  pending    {size(totals['pending']):>11}   freed, while other streams still use it",
        f"  free       {size(totals['free']):>11}   in the cache, at most {size(totals['largest_free'])} in one piece",
        f"  trace      {len(device['actions']):>11}   events" + _peak(device),
    ]
    for event, wanted, free, stack in device["ooms"]:
        where = facts["stacks"][stack]["label"]
        lines.append(f"  out of memory at event {event}: {size(wanted)} wanted, {size(free)} free on the device, at {where}")
    lines += _table("  who holds memory", device["sites"], top, lambda site: (
        f"{size(site['now']):>11} {site['count']:>6}x {size(site['at_peak']):>11} at the peak   {site['label']}"))
    lines += _table("  segments", sorted(device["segments"], key=lambda segment: -segment["size"]), top, _segment)
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _peak(device: dict[str, Any]) -> str:
    if device["peak"] is None:
        return ""
    return f", peak of {size(device['curve'][device['peak']][0])} requested at event {device['peak']}"


def _segment(segment: dict[str, Any]) -> str:
    used = sum(block[1] for block in segment["blocks"] if block[3] != "inactive")
    width = 32
    bar = "".join(_cell(segment, number, width) for number in range(width))
    pool = "" if segment["pool"] == [0, 0] else f", pool {tuple(segment['pool'])}"
    return f"{size(segment['size']):>11} [{bar}] {100 * used / segment['size']:3.0f}% used, {segment['kind']}, stream {segment['stream']}{pool}"


def _cell(segment: dict[str, Any], number: int, width: int) -> str:
    """'#' where the cell's memory is all in use, '.' where none is, '+' between."""
    begin = segment["address"] + segment["size"] * number // width
    end = segment["address"] + segment["size"] * (number + 1) // width
    used = sum(max(0, min(end, block[0] + block[1]) - max(begin, block[0])) for block in segment["blocks"] if block[3] != "inactive")
    return "#" if used == end - begin else "+" if used else "."


def _table(title: str, rows: list, top: int, line) -> list[str]:
    shown = [f"    {line(row)}" for row in rows[:top]]
    left_out = [f"    and {len(rows) - top} more"] if len(rows) > top else []
    return [title, *shown, *left_out] if rows else []

"""What a snapshot says, worked out for people: totals, the timeline, the life of each allocation, and who made them.

The result is plain data, which the summary prints and the page draws. Sizes are bytes. *Requested* bytes are those that the program
asked for; blocks are rounded up. `None` as a begin or an end is a time before or after the trace; events are numbered from 0.
"""

from __future__ import annotations

from typing import Any

_GROWS, _SHRINKS = ("segment_alloc", "segment_map"), ("segment_free", "segment_unmap")
NO_STACK = "no stack recorded"
_GATHERING = ("torch::unwind::unwind", "torch::CapturedTraceback::gather")  # frames of the recording itself
_TELLING = ("torch::autograd::generated::", "at::_ops::")  # C++ names that say what a thread without Python was doing


def build(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Everything about a snapshot of `snapshot.read`: `stacks`, `frames`, `settings`, and `devices`, those that have something to show."""
    stacks = _Stacks()
    traces = snapshot["device_traces"]
    indices = sorted({segment.get("device", 0) for segment in snapshot["segments"]} | {i for i, trace in enumerate(traces) if trace})
    devices = []
    for index in indices:
        segments = [segment for segment in snapshot["segments"] if segment.get("device", 0) == index]
        trace = traces[index] if index < len(traces) else []
        annotations = [entry for entry in snapshot["external_annotations"] if entry.get("device", 0) == index]
        devices.append(_Device(index, segments, trace, annotations, stacks).facts())
    return {"devices": devices, "stacks": stacks.stacks, "frames": stacks.frames, "settings": snapshot.get("allocator_settings", {})}


class _Stacks:
    """Stacks by number. Each is {"frames": numbers, "label": text}; number 0 is the stack that nobody recorded."""

    def __init__(self) -> None:
        self.frames: list[list[Any]] = []  # [function, file, line]
        self.stacks: list[dict[str, Any]] = [{"frames": [], "label": NO_STACK}]
        self._frame_numbers: dict[tuple[Any, ...], int] = {}
        self._stack_numbers: dict[tuple[int, ...], int] = {(): 0}
        self._of_list: dict[int, tuple[list[Any], int]] = {}  # lists are shared between entries; kept, so that an id stays taken

    def number(self, frames: list[dict[str, Any]] | None) -> int:
        if not frames:
            return 0
        known = self._of_list.get(id(frames))
        if known is not None:
            return known[1]
        shown = [frame for frame in frames if not frame["name"].startswith(_GATHERING)]
        numbers = tuple(map(self._frame_number, shown))
        number = self._stack_numbers.get(numbers)
        if number is None:
            number = self._stack_numbers[numbers] = len(self.stacks)
            self.stacks.append({"frames": list(numbers), "label": label(shown)})
        self._of_list[id(frames)] = (frames, number)
        return number

    def _frame_number(self, frame: dict[str, Any]) -> int:
        key = (frame.get("name", "?"), frame.get("filename", "?"), frame.get("line", 0))
        number = self._frame_numbers.get(key)
        if number is None:
            number = self._frame_numbers[key] = len(self.frames)
            self.frames.append(list(key))
        return number


def label(frames: list[dict[str, Any]]) -> str:
    """The one line that stands for a stack: its innermost Python frame outside of torch, else its innermost Python frame, else what
    core was doing."""
    if not frames:
        return NO_STACK
    python = [frame for frame in frames if frame["filename"].endswith(".py") or frame["filename"].startswith("<")]
    theirs = [frame for frame in python if "/torch/" not in frame["filename"]]
    if not python:
        telling = [frame for mark in _TELLING for frame in frames if frame["name"].startswith(mark)]
        return (telling or frames)[0]["name"].partition("(")[0] + " (C++)"
    frame = (theirs or python)[0]
    return f"{frame['filename']}:{frame['line']} in {frame['name']}"


class _Device:
    def __init__(self, index: int, segments: list, trace: list, annotations: list, stacks: _Stacks) -> None:
        self.index, self.trace, self.stacks = index, trace, stacks
        self.segments = sorted(segments, key=lambda segment: segment["address"])
        self.annotations = annotations

    def facts(self) -> dict[str, Any]:
        segments = [self._segment(segment) for segment in self.segments]
        totals = self._totals(segments)
        curve = self._curve(totals)
        allocations = self._allocations()
        peak = max(range(len(curve)), key=lambda event: curve[event][0], default=None)
        return {
            "index": self.index,
            "totals": totals,
            "segments": segments,
            "times": self._times(),
            "actions": [entry["action"] for entry in self.trace],
            "curve": curve,
            "allocations": allocations,
            "ranges": self._ranges(),
            "peak": peak,
            "ooms": [
                [event, entry["size"], entry.get("device_free", 0), self.stacks.number(entry.get("frames"))]
                for event, entry in enumerate(self.trace) if entry["action"] == "oom"
            ],
            "annotations": self._annotation_ranges(),
            "sites": self._sites(segments, allocations, peak),
        }

    def _segment(self, segment: dict[str, Any]) -> dict[str, Any]:
        address, blocks = segment["address"], []
        for block in segment["blocks"]:
            live = block["state"].startswith("active")
            requested = block.get("requested_size", block["size"]) if live else 0
            blocks.append([address, block["size"], requested, block["state"], self.stacks.number(block.get("frames"))])
            address += block["size"]
        return {
            "address": segment["address"],
            "size": segment["total_size"],
            "stream": segment.get("stream", 0),
            "kind": segment.get("segment_type", "?"),
            "pool": list(segment.get("segment_pool_id", (0, 0))),
            "expandable": bool(segment.get("is_expandable", False)),
            "stack": self.stacks.number(segment.get("frames")),
            "blocks": blocks,
        }

    def _totals(self, segments: list[dict[str, Any]]) -> dict[str, int]:
        blocks = [block for segment in segments for block in segment["blocks"]]
        size = {state: sum(block[1] for block in blocks if block[3] == state) for state in {block[3] for block in blocks}}
        allocated, free = size.get("active_allocated", 0), size.get("inactive", 0)
        reserved = sum(segment["size"] for segment in segments)
        return {
            "reserved": reserved,
            "allocated": allocated,
            "pending": reserved - allocated - free,
            "free": free,
            "rounding": allocated - sum(block[2] for block in blocks if block[3] == "active_allocated"),
            "largest_free": max((block[1] for block in blocks if block[3] == "inactive"), default=0),
            "active_requested": sum(block[2] for block in blocks),
            "segments": len(segments),
            "blocks": sum(block[3] == "active_allocated" for block in blocks),
        }

    def _end_action(self) -> str:
        """The event that ends an allocation; a trace may be without the later one of the two."""
        return "free_completed" if any(entry["action"] == "free_completed" for entry in self.trace) else "free_requested"

    def _curve(self, totals: dict[str, int]) -> list[list[int]]:
        """[requested, reserved] after each event, found backwards from the state at the end."""
        ends = self._end_action()
        requested, reserved = totals["active_requested"], totals["reserved"]
        curve = []
        for entry in reversed(self.trace):
            curve.append([max(requested, 0), max(reserved, 0)])
            action, size = entry["action"], entry["size"]
            requested += size if action == ends else -size if action == "alloc" else 0
            reserved += size if action in _SHRINKS else -size if action in _GROWS else 0
        return curve[::-1]

    def _allocations(self) -> list[list[Any]]:
        """[address, requested, begin, end, stack of the allocation, stack of its end], by begin."""
        ends = self._end_action()
        found: list[list[Any]] = []
        alive: dict[int, list[Any]] = {}
        for event, entry in enumerate(self.trace):
            if entry["action"] == "alloc":
                if entry["addr"] in alive:  # its end is not in the trace
                    alive[entry["addr"]][3] = event
                alive[entry["addr"]] = allocation = [entry["addr"], entry["size"], event, None, self.stacks.number(entry.get("frames")), 0]
                found.append(allocation)
            elif entry["action"] == ends:
                allocation = alive.pop(entry["addr"], None)
                if allocation is None:
                    allocation = [entry["addr"], entry["size"], None, None, 0, 0]
                    found.append(allocation)
                allocation[3], allocation[5] = event, self.stacks.number(entry.get("frames"))
        for segment in self.segments:
            address = segment["address"]
            for block in segment["blocks"]:
                if block["state"].startswith("active") and address not in alive:
                    requested = block.get("requested_size", block["size"])
                    found.append([address, requested, None, None, self.stacks.number(block.get("frames")), 0])
                address += block["size"]
        return sorted(found, key=lambda allocation: -1 if allocation[2] is None else allocation[2])

    def _ranges(self) -> list[list[int]]:
        """[address, size] of the memory that the device ever had, without overlaps, ascending."""
        had = [(segment["address"], segment["address"] + segment["total_size"]) for segment in self.segments]
        had += [(entry["addr"], entry["addr"] + entry["size"]) for entry in self.trace if entry["action"] in (*_GROWS, *_SHRINKS, "alloc")]
        merged: list[list[int]] = []
        for begin, end in sorted(had):
            if merged and begin <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([begin, end])
        return [[begin, end - begin] for begin, end in merged]

    def _times(self) -> list[int]:
        """Microseconds since the first event."""
        first = self.trace[0].get("time_us", 0) if self.trace else 0
        return [entry.get("time_us", first) - first for entry in self.trace]

    def _annotation_ranges(self) -> list[list[Any]]:
        """[name, begin, end] in microseconds since the first event; None where the end was not recorded."""
        first = self.trace[0].get("time_us", 0) if self.trace else 0
        found, begun = [], {}
        for entry in self.annotations:
            at = entry["time_us"] - first
            if entry.get("stage") == "START":
                begun.setdefault(entry["name"], []).append([entry["name"], at, None])
                found.append(begun[entry["name"]][-1])
            elif begun.get(entry["name"]):
                begun[entry["name"]].pop()[2] = at
        return found

    def _sites(self, segments: list, allocations: list, peak: int | None) -> list[dict[str, Any]]:
        """Per line of code: what it holds at the end and what it held at the peak. The largest first."""
        sites: dict[str, dict[str, Any]] = {}

        def site(stack: int) -> dict[str, Any]:
            name = self.stacks.stacks[stack]["label"]
            return sites.setdefault(name, {"label": name, "stack": stack, "now": 0, "count": 0, "at_peak": 0})

        for segment in segments:
            for block in segment["blocks"]:
                if block[3].startswith("active"):
                    site(block[4])["now"] += block[2]
                    site(block[4])["count"] += 1
        for _, size, begin, end, stack, _ in allocations if peak is not None else ():
            if (begin is None or begin <= peak) and (end is None or end > peak):
                site(stack)["at_peak"] += size
        return sorted(sites.values(), key=lambda entry: (-entry["now"], -entry["at_peak"], entry["label"]))

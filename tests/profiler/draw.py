"""Draws a Chrome trace: a lane for each thread and stream, a box for each event, an arrow from each call to its kernel. Writes docs/profiler-trace.png.

    python tests/profiler/draw.py                    a step of a small model on two streams, as docs/profiler.md shows it
    python tests/profiler/draw.py trace.json out.png

Needs Chromium; a step of its own also needs torch_openreg.
"""

import html
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "profiler-trace.png"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
WIDTH, LEFT, ROW = 1400, 170, 22
COLORS = {
    "cpu_op": "#8ab4d8", "user_annotation": "#c9b6e4", "gpu_user_annotation": "#c9b6e4", "kernel": "#7bbf7b", "gpu_memcpy": "#f0b46a",
    "gpu_memset": "#e8d36a", "privateuse1_runtime": "#bbbbbb", "cuda_sync": "#e08a8a",
}  # fmt: skip


def lanes(events):
    """{(process, thread): its boxes as (begin, end, depth, event)}, hosts first; times in microseconds."""
    boxes = {}
    for event in sorted((e for e in events if e.get("ph") == "X" and e.get("cat") in COLORS), key=lambda e: (e["ts"], -e["dur"])):
        lane = boxes.setdefault((event["pid"], event["tid"]), [])
        depth = sum(1 for begin, end, _, other in lane if begin <= event["ts"] < end)
        lane.append((event["ts"], event["ts"] + event["dur"], depth, event))
    devices = {event["pid"] for event in events if event.get("cat") in ("kernel", "gpu_memcpy")}
    return dict(sorted(boxes.items(), key=lambda item: (item[0][0] in devices, str(item[0]))))


def svg(events, only=None):
    """The picture. `only`: (begin, end) in microseconds of the trace."""
    rows = lanes(events)
    begin = min(box[0] for lane in rows.values() for box in lane) if only is None else only[0]
    end = max(box[1] for lane in rows.values() for box in lane) if only is None else only[1]
    scale = (WIDTH - LEFT - 10) / max(end - begin, 1e-9)
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e.get("name") == "thread_name"}
    parts, y, places = [], 10, {}
    for key, lane in rows.items():
        shown = [box for box in lane if box[1] >= begin and box[0] <= end]
        if not shown:
            continue
        label = f"openreg:{key[0]} {names.get(key, key[1])}" if any(box[3]["cat"] in ("kernel", "gpu_memcpy", "gpu_memset") for box in lane) else f"thread {key[1]}"
        parts.append(f'<text x="6" y="{y + 15}" class="lane">{html.escape(label)}</text>')
        for first, last, depth, event in shown:
            x, top = LEFT + (max(first, begin) - begin) * scale, y + depth * ROW
            width = max(1.0, (min(last, end) - max(first, begin)) * scale)
            parts.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 3}" fill="{COLORS[event["cat"]]}"><title>{html.escape(event["name"])}</title></rect>')
            room = int(width // 6.5)
            if room > 2:
                parts.append(f'<text x="{x + 2:.1f}" y="{top + 14}">{html.escape(event["name"][:room])}</text>')
            correlation = event.get("args", {}).get("correlation")
            if correlation is not None:
                places.setdefault(correlation, {})["call" if event["cat"] == "privateuse1_runtime" else "operation"] = (x, top + ROW // 2)
        y += (max(box[2] for box in shown) + 1) * ROW + 12
    for place in places.values():
        if len(place) == 2:
            (x1, y1), (x2, y2) = place["call"], place["operation"]
            parts.append(f'<path d="M{x1:.1f} {y1} C {x1:.1f} {(y1 + y2) / 2} {x2:.1f} {(y1 + y2) / 2} {x2:.1f} {y2}" class="arrow"/>')
    style = "text{font:11px sans-serif}.lane{font-weight:bold}.arrow{fill:none;stroke:#555;stroke-width:.7;opacity:.6}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}"><style>{style}</style><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>', y


def draw(events, target, only=None):
    """Writes the PNG. RuntimeError without Chromium, or when it fails."""
    if CHROMIUM is None:
        raise RuntimeError("Drawing needs Chromium.")
    picture, height = svg(events, only)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(f"<body style='margin:0'>{picture}")
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
                   f"--window-size={WIDTH},{height}", f"--screenshot={Path(target).resolve()}", page.as_uri()]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if result.returncode != 0 or not Path(target).exists():
        raise RuntimeError(f"Chromium ended with status {result.returncode}: {result.stderr[-500:]}")


def step():
    """The trace of one training step with an upload on a stream of its own."""
    import torch
    import torch_openreg  # noqa: F401
    from torch.profiler import ProfilerActivity, profile, record_function

    torch.set_num_threads(1)
    model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 16)).to("openreg")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = [torch.randn(256, 256).pin_memory() for _ in range(2)]
    uploads = torch.openreg.Stream()
    x = batches[0].to("openreg")

    def one(x):
        with record_function("upload"), torch.openreg.stream(uploads):
            following = batches[1].to("openreg", non_blocking=True)
        with record_function("forward"):
            loss = model(x).square().mean()
        with record_function("backward"):
            loss.backward()
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        torch.openreg.current_stream().wait_stream(uploads)
        following.record_stream(torch.openreg.current_stream())
        return following

    for _ in range(3):
        one(x)
    torch.openreg.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.PrivateUse1]) as prof:
        one(x)
        torch.openreg.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        prof.export_chrome_trace(f"{folder}/trace.json")
        return json.loads(Path(folder, "trace.json").read_text())["traceEvents"]


if __name__ == "__main__":
    if len(sys.argv) == 3:
        draw(json.loads(Path(sys.argv[1]).read_text())["traceEvents"], sys.argv[2])
    else:
        draw(step(), PICTURE)

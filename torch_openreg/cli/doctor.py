"""`openreg doctor`: versions, driver, devices, environment, limits, and what is wrong with what to do about it.

Survives everything that can be wrong: whatever may crash or hang runs in a process of its own (doctor_probe.py).
"""

import difflib
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
from pathlib import Path

from torch_openreg import child

PROBE_TIMEOUT_S = 60
VARIABLES = (
    "TORCH_DEVICE_BACKEND_AUTOLOAD", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_NO_CUDA_MEMORY_CACHING",
    "OMP_NUM_THREADS", "LD_PRELOAD", "LD_LIBRARY_PATH",
)


def add_parser(commands) -> None:
    doctor = commands.add_parser("doctor", help="print versions, driver, devices, environment, and what is wrong")
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.set_defaults(handler=_handle)


def _handle(arguments) -> int:
    report = examine()
    print(json.dumps(report, indent=2) if arguments.json else render(report))
    return 1 if report["problems"] else 0


def examine() -> dict:
    """All facts, plus `problems` (sentences: what is wrong and what to do) and `notes` (worth knowing, not wrong)."""
    report: dict = {"problems": [], "notes": []}
    report["versions"] = _versions(report)
    report["driver"] = _driver(report)
    report["devices"] = _devices(report)
    report["environment"] = _environment(report)
    report["limits"] = _limits()
    return report


# -- versions --


def _versions(report) -> dict:
    built = _build_info()
    facts = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": f"{sys.platform}-{platform.machine()}",
        "torch_openreg": built.get("VERSION", "not built"),
        "installed_at": str(Path(__file__).resolve().parent.parent),
        "torch_found": _distribution_version("torch"),
        "torch_built_against": built.get("TORCH_VERSION", "unknown"),
        "compiler": built.get("COMPILER", "unknown"),
    }
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        report["problems"].append(
            f"This machine is {facts['platform']}; torch_openreg runs on Linux on x86_64 and aarch64 only."
        )
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        report["problems"].append(f"This is Python {platform.python_version()}; use Python 3.10 to 3.13.")
    if facts["torch_found"] == "not installed":
        report["problems"].append("torch is not installed for this Python; run `pip install .` in the source tree, which brings it.")
    if not built:
        report["problems"].append(
            "The compiled extension is missing (there is no torch_openreg/_build_info.py); run `pip install .` in the source tree."
        )
    return facts


def _build_info() -> dict:
    try:
        module = importlib.import_module("torch_openreg._build_info")
    except Exception:
        return {}
    return {name: getattr(module, name) for name in ("VERSION", "TORCH_VERSION", "COMPILER", "PLATFORM") if hasattr(module, name)}


def _distribution_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# -- driver --


def _driver(report) -> dict:
    from torch_openreg import driver

    try:
        settings = driver.read_settings()
    except ValueError as error:
        report["problems"].append(f"A setting is wrong: {error}")
        return {"path": os.environ.get("OPENREG_DRIVER", ""), "layers": [], "options": {}, "error": "a setting is wrong"}
    facts = {"path": settings.driver, "layers": list(settings.layers), "options": dict(settings.options)}
    if not os.path.exists(settings.driver):
        facts["error"] = "the file does not exist"
        advice = (
            "unset OPENREG_DRIVER, or set it to the path of a driver library"
            if os.environ.get("OPENREG_DRIVER")
            else "run `pip install .` in the source tree, which builds the simulator"
        )
        report["problems"].append(f"The driver library {settings.driver} does not exist; {advice}.")
        return facts
    facts.update(_probe("driver", settings.driver))
    if "error" in facts:
        report["problems"].append(
            f"The driver library {settings.driver} cannot be used: {facts['error']}; "
            "set OPENREG_DRIVER to another driver, or unset it to use the simulator (see docs/hal.md)."
        )
    return facts


# -- devices --


def _devices(report) -> list:
    if report["versions"]["torch_found"] == "not installed" or report["versions"]["torch_openreg"] == "not built":
        report["notes"].append("The devices are not examined: that needs torch and the compiled extension.")
        return []
    if "error" in report["driver"]:
        report["notes"].append("The devices are not examined: that needs the driver.")
        return []
    facts = _probe("torch")
    if "error" in facts:
        what = {
            "torch": "torch cannot be imported", "torch_openreg": "torch_openreg cannot be loaded",
            "devices": "The devices cannot be used",
        }.get(facts.get("stage", ""), "Loading torch and the device fails")
        report["problems"].append(f"{what}: {facts['error'].rstrip('.')}.")
        return []
    devices = facts["devices"]
    if not devices:
        report["problems"].append("There is no device; check OPENREG_DEVICES and OPENREG_VISIBLE_DEVICES below.")
    for device in devices:
        if "error" in device:
            report["problems"].append(
                f"openreg:{device['index']} does not compute: {device['error'].rstrip('.')}; "
                "run it again under OPENREG_LAUNCH_BLOCKING=1 to see where the error starts."
            )
    return devices


def _probe(*arguments: str) -> dict:
    """Runs doctor_probe; a crash or a hang of it becomes {"error"}."""
    command = child.command("torch_openreg.cli.doctor_probe", *arguments)
    environment = {**os.environ, "TORCH_OPENREG_DEFER_LOAD": "1", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"it does not finish loading within {PROBE_TIMEOUT_S} s"}
    words = done.stderr.strip().splitlines()
    last_words = f", and its last words are: {words[-1]}" if words else ""
    if done.returncode < 0:
        return {"error": f"the process that loads it ends with {signal.Signals(-done.returncode).name}{last_words}"}
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": f"the process that loads it ends with status {done.returncode}{last_words}"}


# -- environment and limits --


def _environment(report) -> dict:
    from torch_openreg import driver

    found = {
        name: value for name, value in sorted(os.environ.items())
        if name.startswith("OPENREG_") or name in VARIABLES
    }
    for name in found:
        if name.startswith("OPENREG_") and not name.startswith("OPENREG_TEST_") and name not in driver.VARIABLES:
            near = difflib.get_close_matches(name, driver.VARIABLES, 1)
            report["notes"].append(f"{name} is set, and nothing reads it{f'; {near[0]} is the nearest name' if near else ''}.")
    if found.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
        report["notes"].append(
            "TORCH_DEVICE_BACKEND_AUTOLOAD=0 is set: `import torch` does not bring the device, `import torch_openreg` does."
        )
    elif not any(point.name == "openreg" for point in importlib.metadata.entry_points(group="torch.backends")):
        report["notes"].append(
            "The package is not installed, only importable: `import torch` does not bring the device, `import torch_openreg` does."
        )
    return found


def _limits() -> dict:
    """Memory in bytes, None where there is no limit or nobody says."""
    meminfo = dict(line.split(":", 1) for line in (_text("/proc/meminfo") or "").splitlines() if ":" in line)

    def kib(name):
        return int(meminfo[name].split()[0]) * 1024 if name in meminfo else None

    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    maps = _text("/proc/sys/vm/max_map_count")
    return {
        "memory_total_bytes": kib("MemTotal"),
        "memory_available_bytes": kib("MemAvailable"),
        "cgroup_memory_limit_bytes": _cgroup_limit(),
        "address_space_limit_bytes": None if address_space == resource.RLIM_INFINITY else address_space,
        "max_map_count": int(maps) if maps else None,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def _cgroup_limit() -> int | None:
    """The smallest memory limit of this process's control groups, version 2 and 1, its parents included."""
    limits = []
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        place = Path(path.lstrip("/"))
        for part in (place, *place.parents):
            text = _text(folder / part / name)
            if text and text.isdigit() and int(text) < 2**60:
                limits.append(int(text))
    return min(limits, default=None)


def _text(path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


# -- printing --


def render(report: dict) -> str:
    """The report for a reader."""
    lines = []

    def section(title, pairs):
        lines.append(title)
        pairs = list(pairs)
        width = max((len(name) for name, _ in pairs), default=0)
        lines.extend(f"  {name.ljust(width)}  {value}" for name, value in pairs or [("none", "")])

    section("versions", ((name if name == "torch_openreg" else name.replace("_", " "), value) for name, value in report["versions"].items()))
    section("driver", ((name, _plain(value)) for name, value in report["driver"].items()))
    section("devices", ((f"openreg:{d['index']}", _device_line(d)) for d in report["devices"]))
    section("environment", report["environment"].items())
    section("limits", ((_limit_name(name), _limit_text(name, value)) for name, value in report["limits"].items()))
    if report["notes"]:
        lines += ["notes", *(f"  - {note}" for note in report["notes"])]
    if report["problems"]:
        lines += ["what is wrong", *(f"  - {problem}" for problem in report["problems"])]
    else:
        lines.append("nothing is wrong")
    return "\n".join(line.rstrip() for line in lines)


def _plain(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or "none"
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


def _device_line(device: dict) -> str:
    if "total_bytes" not in device:
        return device["error"]
    return f"{device['name']}, {_size(device['free_bytes'])} free of {_size(device['total_bytes'])}"


def _limit_name(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def _limit_text(name: str, value) -> str:
    if value is None:
        return "none"
    return _size(value) if name.endswith("_bytes") else str(value)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"

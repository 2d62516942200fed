"""Settings of the driver: which library, which layers, how many devices, how much memory, which schedule.

They come from the environment (OPENREG_*) and from `torch_openreg.configure`, which wins. They are read at
the latest possible moment, when the first device is used, and handed to the extension in one call. Pinning memory as the first use does not
pass through Python: it sees `configure`, and the environment as it was at the import or at the latest `configure`. Needs no torch.

| variable | meaning | default |
|---|---|---|
| OPENREG_DRIVER | path of a driver library, or the name of one in this package (`sim`, `null`) | `sim` |
| OPENREG_LAYERS | layers around the driver, the first is closest to the caller: `sanitizer`, `faults` | none |
| OPENREG_DEVICES | number of simulated devices | 2 |
| OPENREG_MEMORY | memory per device: `8GiB`, `512MiB`, or bytes | chosen by the driver |
| OPENREG_SCHEDULE | `eager`, `lazy` or `random:SEED` | `eager` |
| OPENREG_SCHEDULE_LOG | a file for what `random:SEED` queues and runs, in order | none |
| OPENREG_KERNEL_VIEW | `on`, or `off`: the host cannot map device memory, operators stage copies | `on` |
| OPENREG_SANITIZE | what the sanitizer looks for: `races,lifetime,init,bounds,leaks,poison` | nothing |
| OPENREG_STALL_SECONDS | a wait that takes longer is reported with what the streams do; `0` never | 120 |
| OPENREG_STALL_ACTION | `report`, or `abandon`: a device whose kernel does not end is given up, too | `report` |
| OPENREG_VISIBLE_DEVICES | the devices this process sees, in its order: `1,0`; empty for none | all |

The extension itself reads OPENREG_LAUNCH_BLOCKING and OPENREG_LAUNCH_TRACE, 1 or 0, and the OPENREG_STALL variables, which are only checked here;
`torch.openreg.faults` reads OPENREG_FAULTS.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

SIMULATOR = "sim"
DOCS_PAGE = "docs/hal.md"
DEFAULT_DEVICES = 2  # the simulator's own default, so that counting devices need not start it
SANITIZER_MODES = ("races", "lifetime", "init", "bounds", "leaks", "poison")  # in the order of the extension's bits
MAX_DEVICES, MAX_MEMORY, MAX_SEED = 64, 2**46, 2**64 - 1  # the simulator's own limits; memory in bytes
VARIABLES = (
    "OPENREG_ALLOC_CONF", "OPENREG_CHECK_METADATA", "OPENREG_DEVICES", "OPENREG_DRIVER", "OPENREG_FAULTS", "OPENREG_KERNEL_VIEW", "OPENREG_LAUNCH_BLOCKING",
    "OPENREG_LAUNCH_TRACE", "OPENREG_LAYERS", "OPENREG_MEMORY", "OPENREG_NO_MEMORY_CACHING", "OPENREG_SANITIZE", "OPENREG_SCHEDULE", "OPENREG_SCHEDULE_LOG",
    "OPENREG_STALL_ACTION", "OPENREG_STALL_SECONDS", "OPENREG_VISIBLE_DEVICES",
)  # every one that some part of the package reads; those of tests begin with OPENREG_TEST_  # fmt: skip

_BYTE_UNITS = {
    "": 1, "B": 1,
    "K": 2**10, "KIB": 2**10, "KB": 10**3,
    "M": 2**20, "MIB": 2**20, "MB": 10**6,
    "G": 2**30, "GIB": 2**30, "GB": 10**9,
    "T": 2**40, "TIB": 2**40, "TB": 10**12,
}  # fmt: skip

_Entry = TypeVar("_Entry")

_overrides: dict[str, str] = {}
_extension: types.ModuleType | None = None


@dataclass(frozen=True)
class Settings:
    """What `_C.configure` takes. `options` holds only what somebody asked for: each driver has its own defaults."""

    driver: str
    layers: tuple[str, ...]
    options: Mapping[str, str]
    visible: tuple[int, ...] | None
    sanitize: tuple[str, ...] = ()


def configure(
    devices: int | None = None, memory: int | str | None = None, schedule: str | None = None
) -> None:
    """Sets up the simulated machine; only what is given changes. Call it before the first use of a device.

    Args:
        devices: number of devices, at least 1.
        memory: memory of each device, in bytes or as a string like "8GiB".
        schedule: "eager" (queued work starts at once), "lazy" (it runs when something waits for it) or
            "random:SEED" (as lazy, in an order that depends on the seed only).

    Raises ValueError for a bad value and RuntimeError when devices are already in use; nothing has changed then.
    """
    changes: dict[str, str] = {}
    if devices is not None:
        changes["devices"] = _parse_devices("devices", devices)
    if memory is not None:
        changes["memory"] = parse_memory("memory", memory)
    if schedule is not None:
        changes["schedule"] = parse_schedule("schedule", schedule)
    if _extension is not None and _extension.is_initialized():
        raise RuntimeError(
            "torch_openreg.configure() has no effect any more, because the devices are already in use: "
            "call it before the first use of a device."
        )
    _overrides.update(changes)
    if _extension is not None:
        prepare(_extension)


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings that hold now. ValueError, naming the variable, for a bad value."""
    environ = os.environ if environ is None else environ
    options: dict[str, str] = {}
    if environ.get("OPENREG_DEVICES"):
        options["devices"] = _parse_devices("OPENREG_DEVICES", environ["OPENREG_DEVICES"])
    if environ.get("OPENREG_MEMORY"):
        options["memory"] = parse_memory("OPENREG_MEMORY", environ["OPENREG_MEMORY"])
    if environ.get("OPENREG_SCHEDULE"):
        options["schedule"] = parse_schedule("OPENREG_SCHEDULE", environ["OPENREG_SCHEDULE"])
    if environ.get("OPENREG_SCHEDULE_LOG"):
        options["schedule_log"] = os.path.abspath(environ["OPENREG_SCHEDULE_LOG"])
    if environ.get("OPENREG_KERNEL_VIEW"):
        options["kernel_view"] = _parse_kernel_view("OPENREG_KERNEL_VIEW", environ["OPENREG_KERNEL_VIEW"])
    _check_stall_settings(environ)
    for flag in ("OPENREG_LAUNCH_BLOCKING", "OPENREG_LAUNCH_TRACE"):
        if environ.get(flag, "") not in ("", "0", "1"):
            raise ValueError(f"{flag} is 1 or 0, not {environ[flag]!r}.")
    options.update(_overrides)
    layers = tuple(name.strip() for name in environ.get("OPENREG_LAYERS", "").split(",") if name.strip())
    return Settings(
        driver=library_path(environ.get("OPENREG_DRIVER") or SIMULATOR),
        layers=layers,
        options=options,
        sanitize=parse_sanitizer_modes("OPENREG_SANITIZE", environ.get("OPENREG_SANITIZE", "")),
        visible=parse_visible_devices(environ.get("OPENREG_VISIBLE_DEVICES")),
    )


def prepare(extension: types.ModuleType) -> None:
    """Hands the settings to the extension at import and by `configure`, so that a first use from C++ finds them.

    A bad setting is not an error yet: `apply` reports it at the first use, and `import torch` goes on.
    """
    global _extension
    _extension = extension
    try:
        _hand_over(extension, read_settings())
    except ValueError:
        pass


def apply(extension: types.ModuleType) -> None:
    """Hands the settings to the extension, right before it starts the driver.

    ValueError for a bad setting; RuntimeError when the driver library is not there.
    """
    settings = read_settings()
    if not os.path.isfile(settings.driver):
        raise RuntimeError(
            f"The openreg driver library '{settings.driver}' does not exist: set OPENREG_DRIVER to the path of a "
            f"driver library, or unset it to use the simulator that comes with torch_openreg (see {DOCS_PAGE})."
        )
    _hand_over(extension, settings)


def expected_device_count() -> int | None:
    """How many devices will be visible, without starting the driver; None when only the driver knows.

    0 when the settings are wrong or the library is missing: the reason is raised by the first use.
    """
    try:
        settings = read_settings()
    except ValueError:
        return 0
    if not os.path.isfile(settings.driver):
        return 0
    if settings.driver != library_path(SIMULATOR):
        return None
    present = int(settings.options.get("devices", DEFAULT_DEVICES))
    if settings.visible is None:
        return present
    return len(_up_to_first(settings.visible, lambda index: index >= present))


def library_path(driver: str) -> str:
    """The library of a driver that is given by path, or by name (no slash, no dot) when it is one of this package's."""
    if re.fullmatch(r"[A-Za-z0-9_]+", driver):
        folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib")
        return os.path.join(folder, f"libopenreg_{driver}.so")
    return os.path.abspath(os.path.expanduser(driver))


def parse_visible_devices(text: str | None) -> tuple[int, ...] | None:
    """Reads OPENREG_VISIBLE_DEVICES as CUDA reads its own: a list in the order of visible indices.

    None (unset) means all, the empty string means none, and the first entry that is no device number ends the
    list. An index that the driver does not have ends it too, but only the driver knows those. Naming a device
    twice raises ValueError.
    """
    if text is None:
        return None
    entries = _up_to_first(
        [entry.strip() for entry in text.split(",")], lambda entry: re.fullmatch(r"[0-9]+", entry) is None
    )
    visible = tuple(int(entry) for entry in entries)
    for index in visible:
        if visible.count(index) > 1:
            raise ValueError(f"OPENREG_VISIBLE_DEVICES='{text}' names device {index} more than once.")
    return visible


def parse_sanitizer_modes(source: str, modes: str | Iterable[str]) -> tuple[str, ...]:
    """The names in a list like "races,lifetime". ValueError, naming the source, for one that does not exist."""
    words = modes.split(",") if isinstance(modes, str) else list(modes)
    names = tuple(word.strip() for word in words if word.strip())
    for name in names:
        if name not in SANITIZER_MODES:
            raise ValueError(f"{source} lists modes out of {', '.join(SANITIZER_MODES)}; {name!r} is none of them.")
    return tuple(mode for mode in SANITIZER_MODES if mode in names)


def _up_to_first(entries: Iterable[_Entry], is_end: Callable[[_Entry], bool]) -> list[_Entry]:
    kept: list[_Entry] = []
    for entry in entries:
        if is_end(entry):
            break
        kept.append(entry)
    return kept


def _hand_over(extension: types.ModuleType, settings: Settings) -> None:
    visible = None if settings.visible is None else list(settings.visible)
    extension.configure(settings.driver, list(settings.layers), dict(settings.options), visible, expected_device_count() or 0)


def _parse_devices(source: str, value: int | str) -> str:
    number = _whole_number(value)
    if number is None or not 1 <= number <= MAX_DEVICES:
        raise ValueError(f"{source} is a number of devices from 1 to {MAX_DEVICES}, not {value!r}.")
    return str(number)


def _parse_kernel_view(source: str, value: str) -> str:
    if value not in ("on", "off"):
        raise ValueError(f"{source} is on or off, not {value!r}.")
    return value


def _check_stall_settings(environ: Mapping[str, str]) -> None:
    seconds, action = environ.get("OPENREG_STALL_SECONDS", ""), environ.get("OPENREG_STALL_ACTION", "")
    if seconds and re.fullmatch(r"[0-9]+(\.[0-9]*)?", seconds) is None:
        raise ValueError(f"OPENREG_STALL_SECONDS is a number of seconds, 0 or above, not {seconds!r}.")
    if action not in ("", "report", "abandon"):
        raise ValueError(f"OPENREG_STALL_ACTION is report or abandon, not {action!r}.")


def parse_memory(source: str, value: int | str) -> str:
    """The number of bytes in "8GiB", "512MiB" or a plain number, as text. ValueError, naming the source, for anything else."""
    number = _whole_number(value)
    if number is None and isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,30}(?:\.[0-9]+)?)\s*([A-Za-z]*)", value.strip())
        if match is not None and match[2].upper() in _BYTE_UNITS:
            number = int(float(match[1]) * _BYTE_UNITS[match[2].upper()])
    if number is None or not 0 < number <= MAX_MEMORY:
        raise ValueError(f"{source} is a size above zero and up to {MAX_MEMORY // 2**30}GiB, in bytes or like '8GiB' or '512MiB', not {value!r}.")
    return str(number)


def parse_schedule(source: str, value: str) -> str:
    """The schedule as the driver takes it. ValueError, naming the source, for anything else."""
    text = value.strip() if isinstance(value, str) else ""
    if not re.fullmatch(r"eager|lazy|random:[0-9]{1,30}", text) or int(text.partition(":")[2] or 0) > MAX_SEED:
        raise ValueError(f"{source} is 'eager', 'lazy' or 'random:SEED' with a whole number up to {MAX_SEED}, not {value!r}.")
    return text


def _whole_number(value: int | str) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,30}\s*", value):
        return int(value)
    return None

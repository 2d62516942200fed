"""What `openreg doctor` runs in processes of their own, so that a library that crashes while loading is a finding.

`python -m torch_openreg.cli.doctor_probe driver PATH` and `... torch` print one JSON object as their last line.
"""

import ctypes
import json
import os
import sys

HAL_MAJOR = 1  # OPENREG_HAL_MAJOR of csrc/hal/openreg_hal.h


class _TableHead(ctypes.Structure):
    """The first fields of openreg_driver, which never move."""

    _fields_ = [
        ("struct_size", ctypes.c_uint32),
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("wants", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
    ]


def probe_driver(path: str) -> dict:
    """Opens a driver library and reads the head of its table; does not start it. {"error"} or its facts."""
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)
    except OSError as error:
        return {"error": f"it cannot be opened ({error})"}
    try:
        get_driver = library.openreg_get_driver
    except AttributeError:
        return {"error": "it does not export openreg_get_driver, so it is no openreg driver"}
    get_driver.argtypes = [ctypes.c_uint32, ctypes.POINTER(ctypes.POINTER(_TableHead))]
    get_driver.restype = ctypes.c_int32
    table = ctypes.POINTER(_TableHead)()
    status = get_driver(HAL_MAJOR, ctypes.byref(table))
    if status != 0 or not table:
        return {"error": f"it refuses HAL version {HAL_MAJOR} with status {status}"}
    head = table.contents
    if head.major != HAL_MAJOR:
        return {"error": f"its table has HAL version {head.major}, and {HAL_MAJOR} is needed"}
    name = head.name.decode(errors="replace") if head.name else ""
    return {"name": name, "hal": f"{head.major}.{head.minor}", "table_bytes": head.struct_size}


def probe_torch() -> dict:
    """Loads torch and the device, and uses every device once. {"error", "stage"} or {"torch", "devices"}."""
    stage = "torch"
    try:
        import torch

        facts = {"torch": torch.__version__, "devices": []}
        stage = "torch_openreg"
        import torch_openreg

        error = torch_openreg.load_error()
        if error is not None:
            return {**facts, "error": f"{error}", "stage": stage}
        stage = "devices"
        for index in range(torch.openreg.device_count()):
            facts["devices"].append(_device(torch, index))
        if not facts["devices"]:
            torch.openreg.init()  # raises with the reason, when the reason is not an empty OPENREG_VISIBLE_DEVICES
        return facts
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "stage": stage}


def _device(torch, index: int) -> dict:
    try:
        free, total = torch.openreg.mem_get_info(index)
        facts = {
            "index": index, "name": torch.openreg.get_device_name(index), "free_bytes": free, "total_bytes": total,
        }
        result = (torch.ones(3, device=f"openreg:{index}") + 1).cpu().tolist()
        if result != [2.0, 2.0, 2.0]:
            facts["error"] = f"ones(3) + 1 gives {result}"
        return facts
    except Exception as error:
        return {"index": index, "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    print(json.dumps(probe_driver(sys.argv[2]) if sys.argv[1] == "driver" else probe_torch()), flush=True)

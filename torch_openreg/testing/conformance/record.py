"""Runs a script under the recorder, in a process of its own, and writes its model pack. Started by `openreg conformance record`.

Exit status 0 with a pack, the script's own when it fails, 1 when it never calls an operator on the device, 2 when nothing can be recorded.
"""

import json
import os
import sys
from pathlib import Path


def main(task) -> object:
    os.environ.pop("TORCH_OPENREG_DEFER_LOAD", None)  # the command's; processes of the script shall load the device
    from torch_openreg.cli import program

    from . import pack as packs
    from .device import DeviceUnderTest, UnusableDevice
    from .recorder import Recorder

    try:
        device = DeviceUnderTest(task["device"], task["module"]).device
    except UnusableDevice as error:
        print(error, file=sys.stderr)
        return 2
    out = Path(task["out"])
    with Recorder(device) as recorder:
        status = program.run(task["program"], task["arguments"], module=False)
    if status not in (0, None):
        print(f"openreg conformance record: the script ended with status {status}; no pack is written", file=sys.stderr)
        return status
    made = recorder.pack(packs.name_for(out), " ".join([Path(task["program"]).name, *task["arguments"]]))
    if not made.calls:
        others = ", ".join(f"{count} on {name}" for name, count in sorted(recorder.elsewhere.items())) or "none on any other"
        print(f"openreg conformance record: the script makes no call on {device.type} that a pack can hold; {others}", file=sys.stderr)
        return 1
    packs.write(made, out)
    print(f"{out}: {made.recorded} calls, {len(made.calls)} distinct, of {len(made.operators)} operators")
    for reason, count in sorted(made.left_out.items()):
        print(f"  left out: {count} where {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

"""The Python in which `openreg trace` runs a program: output file, number of records, "script" or "module", its name, its arguments."""

import os
import sys

from torch_openreg.cli import program


def main() -> None:
    output, max_events, kind, name, *arguments = sys.argv[1:]
    import torch
    import torch_openreg

    torch_openreg.load()
    trace = torch.openreg.trace(int(max_events))
    trace.start()
    process = os.getpid()
    status = program.run(name, arguments, module=kind == "module")
    if os.getpid() != process:  # a forked child ends here, too; the trace is its parent's
        sys.exit(status)
    try:
        trace.stop()
    except Exception as error:
        print(error, file=sys.stderr)
    trace.export_chrome_trace(output)
    print(f"openreg trace: {output}", file=sys.stderr)
    if trace.dropped:
        print(f"openreg trace: {trace.dropped} records had no room; --max-events makes more", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()

"""The Python in which `openreg trace` runs a program: output file, number of records, "script" or "module", its name, its arguments."""

import os
import runpy
import sys
import traceback
import types


def main() -> None:
    output, max_events, kind, name, *arguments = sys.argv[1:]
    import torch
    import torch_openreg

    torch_openreg.load()
    trace = torch.openreg.trace(int(max_events))
    trace.start()
    sys.argv = [name, *arguments]
    sys.path[0:1] = [os.getcwd() if kind == "module" else os.path.dirname(os.path.abspath(name))]
    process = os.getpid()
    status = _run(kind, name)
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


def _run(kind: str, name: str) -> object:
    """Runs the program as __main__ and returns what sys.exit would get."""
    try:
        if kind == "module":
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(name, run_name="__main__")
    except SystemExit as end:
        return end.code
    except KeyboardInterrupt:
        return 130
    except BaseException as error:
        traceback.print_exception(error.with_traceback(_of_program(error.__traceback__)))
        return 1
    return 0


def _of_program(frames: types.TracebackType | None) -> types.TracebackType | None:
    """The traceback without the frames that this file adds."""
    own = (__file__, runpy.__file__)
    while frames is not None and (frames.tb_frame.f_code.co_filename in own or "runpy" in frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames


if __name__ == "__main__":
    main()

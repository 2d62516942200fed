"""A program that another one runs in its own process, as Python would run it alone: a script, or a module as with `python -m`."""

import os
import runpy
import sys
import traceback
import types


def run(name: str, arguments: list[str], *, module: bool) -> object:
    """Runs the program as __main__ with its arguments and its folder on the path, and returns what sys.exit would get. Its errors are printed."""
    sys.argv = [name, *arguments]
    sys.path[0:1] = [os.getcwd() if module else os.path.dirname(os.path.abspath(name))]
    try:
        if module:
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

"""The libraries that variants load, compiled once for each content, by whoever asks first."""

import ctypes
import fcntl
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
CSRC = HERE.parents[2] / "csrc"


def compile(source: str, *flags: str) -> Path:
    """The shared library of a file beside this one."""
    digest = hashlib.sha256(repr(flags).encode() + (HERE / source).read_bytes()).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"openreg-broken-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    library = folder / f"{Path(source).stem}-{digest}.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            scratch = library.with_suffix(f".{os.getpid()}")
            subprocess.run(["g++", "-std=c++20", "-shared", "-fPIC", "-fvisibility=hidden", str(HERE / source), "-o", str(scratch), *flags], check=True)
            os.replace(scratch, library)
    return library


def guard_library() -> Path:
    """broken_guard.cpp, against the headers and libc10 of the torch that is there."""
    from torch.utils import cpp_extension

    includes = [f"-I{folder}" for folder in cpp_extension.include_paths()]
    libraries = [flag for folder in cpp_extension.library_paths() for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    return compile("broken_guard.cpp", *includes, *libraries, "-lc10")


def driver_library() -> Path:
    """broken_driver.cpp, against the header of the HAL."""
    return compile("broken_driver.cpp", f"-I{CSRC}", "-ldl")


def break_driver(fault: str) -> None:
    """Puts a driver with this fault between the simulator and whoever loads OPENREG_DRIVER next."""
    from torch_openreg.driver import library_path

    os.environ.update(OPENREG_DRIVER=str(driver_library()), BROKEN_DRIVER=fault, BROKEN_DRIVER_BELOW=library_path("sim"))


def break_guard(fault: str):
    """Replaces the guard of the device by one with this fault."""
    library = ctypes.CDLL(str(guard_library()))
    library.break_guard(fault.encode())
    return library

"""Builds and loads leaky_square.cpp against the installed torch_openreg, and gives the operator its gradient.

    from leaky_square import load
    load(folder)                       # builds into the folder, once
    torch.ops.example.leaky_square(x, 0.1)
"""

from pathlib import Path

import torch
from torch.utils import cpp_extension

import torch_openreg

SOURCE = Path(__file__).with_suffix(".cpp")


def load(folder):
    """Builds into `folder` (needs a C++ compiler and ninja) and registers the operator in this process. Returns the library's path."""
    libraries = torch_openreg.get_lib_dir()
    cpp_extension.load(
        name="leaky_square",
        sources=[str(SOURCE)],
        extra_include_paths=[torch_openreg.get_include()],
        extra_cflags=["-O1", "-g0"],
        extra_ldflags=[f"-L{libraries}", "-ltorch_openreg", f"-Wl,-rpath,{libraries}"],
        build_directory=str(folder),
        is_python_module=False,
    )
    add_gradient()
    return Path(folder) / "leaky_square.so"


def add_gradient():
    """The derivative, in terms of the second operator: works for every device that has both."""

    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])
        ctx.slope = inputs[1]

    def backward(ctx, grad):
        return torch.ops.example.leaky_square_backward(grad, *ctx.saved_tensors, ctx.slope), None

    torch.library.register_autograd("example::leaky_square", backward, setup_context=setup_context)

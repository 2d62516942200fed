"""Builds torch_openreg: three shared libraries and the Python package.

- lib/libopenreg_<driver>.so: drivers. They know csrc/hal only and link neither torch nor Python.
- lib/libtorch_openreg.so: runtime and operators. Links torch, no driver, no Python.
- _C: the bindings.

    pip install .                        # builds against the reference torch, in isolation
    pip install --no-build-isolation .   # builds against the torch that is installed
    python setup.py build_ext --inplace  # for work on the sources

Sources are listed one by one: a file that is not in a list is not part of the product.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VERSION = "0.1.0"
SUPPORTED_TORCH = ((2, 13), (2, 15))


def refuse(sentence):
    sys.exit(f"torch_openreg cannot be built: {sentence}")


if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
    refuse(f"it needs Linux on x86_64 or aarch64, and this is {sys.platform} on {platform.machine()}.")
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    refuse(f"it needs Python 3.10 to 3.13, and this is {platform.python_version()}.")

# The build must not load an installed torch_openreg through torch's autoload.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError as error:
    refuse(f"torch cannot be imported ({error}). Use `pip install .`, which brings its own, or install torch 2.13 to 2.15 first.")

from setuptools import Extension, find_packages, setup  # noqa: E402  (after the checks above, so that their sentence comes first)

TORCH_MINOR = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
if not SUPPORTED_TORCH[0] <= TORCH_MINOR <= SUPPORTED_TORCH[1]:
    refuse(f"it supports torch 2.13 to 2.15, and this is torch {torch.__version__}.")

DRIVER_SOURCES = {
    "sim": """
        capture compute_slots copy device driver event executor failure fault_report graph host_memory ipc launch memory options process
        random_schedule recovery reservation schedule schedule_log shared_event status stream trace trace_calls usage worker
    """,
    "null": """
        copy device driver event host_memory launch memory status stream
    """,
}

TORCH_SOURCES = """
    layers/layer layers/sanitizer/blocks layers/sanitizer/failures layers/sanitizer/footprint layers/sanitizer/graphs layers/sanitizer/guards layers/sanitizer/order layers/sanitizer/poison layers/sanitizer/report
    layers/sanitizer/sanitizer layers/sanitizer/table layers/faults/plan layers/faults/state layers/faults/table
    profiler/profiler profiler/ranges profiler/session
    runtime/allocator_config runtime/block_table runtime/capture runtime/device runtime/device_allocator runtime/device_heap runtime/device_heap_segments
    runtime/driver runtime/error runtime/event runtime/expandable_segment runtime/fault_report runtime/faults runtime/free_blocks runtime/generator runtime/graph runtime/guard runtime/hooks
    runtime/host_allocator runtime/interpreter_lock runtime/ipc runtime/launch runtime/lease runtime/memory_pool runtime/memory_recorder runtime/memory_snapshot runtime/operands runtime/out_of_memory runtime/recovery runtime/sanitizer runtime/schedule runtime/storage runtime/stream runtime/sync_debug
    runtime/trace runtime/trace_buffer runtime/watchdog
    aten/attention aten/autocast aten/elementwise aten/factories aten/foreach
    aten/nested aten/nll_loss aten/op_stats aten/quantized aten/random aten/rnn aten/sparse
    aten/kernels/attention aten/kernels/binary aten/kernels/copy aten/kernels/fill aten/kernels/foreach aten/kernels/layer_norm aten/kernels/nll_loss aten/kernels/optimizer
    aten/kernels/philox aten/kernels/random aten/kernels/softmax aten/kernels/unary
    aten/engine/core_meta aten/engine/launch_state
    aten/engine/preset
    aten/engine/run aten/engine/task
"""

# Small files that are mostly the same large headers. Each group is compiled as one file, in a fraction of the time that its files take one by one.
TORCH_GROUPS = {
    "engine": """
        aten/engine/arguments aten/engine/chosen aten/engine/infer aten/engine/kinds aten/engine/lists aten/engine/memo aten/engine/op_record
        aten/engine/operands aten/engine/result aten/engine/staging
    """,
    "families": """
        aten/cast aten/convolution aten/copy aten/host_access aten/layer_norm aten/max_pool1d aten/optimizer aten/registration
        aten/softmax aten/tensor aten/tensor_split aten/windows
    """,
    "shapes": """
        aten/engine/shapes/attention aten/engine/shapes/convolution aten/engine/shapes/fft aten/engine/shapes/indexing aten/engine/shapes/linalg
        aten/engine/shapes/list aten/engine/shapes/normalization aten/engine/shapes/pointwise aten/engine/shapes/pooling
        aten/engine/shapes/reduction aten/engine/shapes/shape
    """,
}
PYTHON_GROUPS = {
    "bindings": "python/module python/bind_device python/bind_event python/bind_generator python/bind_graph python/bind_ipc python/bind_stream python/host_function",
    "memory_bindings": "python/bind_memory python/bind_memory_history python/bind_op_stats python/bind_sanitizer python/bind_recovery python/bind_faults python/bind_trace",
}

# What `torch_openreg.get_include()` offers to operators that are built outside the tree.
PUBLIC_HEADERS = """
    hal/openreg_hal.h
    runtime/export.h runtime/device.h runtime/device_allocator.h runtime/driver.h runtime/error.h runtime/event.h
    runtime/capture.h runtime/generator.h runtime/graph.h runtime/host_allocator.h runtime/launch.h runtime/memory_pool.h runtime/operands.h runtime/recovery.h runtime/storage.h runtime/stream.h
    driver/sim/sim_kernel.h
    aten/operands.h aten/tensor.h
"""

# Kernels need the vectoriser (-O3), square roots as one instruction (-fno-math-errno), and products and sums rounded as the CPU's kernels
# round them (-ffp-contract=off).
COMPILE_FLAGS = ["-std=c++20", "-O3", "-g0", "-Wall", "-Wno-interference-size", "-fvisibility=hidden"]
COMPILE_FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
LINK_FLAGS = ["-Wl,--no-as-needed", "-Wl,-s"]


def sources(names, folder=""):
    return [str(Path("csrc", folder, f"{name}.cpp")) for name in names.split()]


def grouped(groups):
    """The files that include those of each group; written anew only when a group has changed, so that nothing else is compiled again."""
    files = []
    for name, names in groups.items():
        file = Path("build", "groups", f"{name}.cpp")
        text = "".join(f'#include "{source}.cpp"\n' for source in names.split())
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        files.append(str(file))
    return files


def driver_extension(name):
    return Extension(
        f"torch_openreg.lib.libopenreg_{name}",
        sources(DRIVER_SOURCES[name], f"driver/{name}"),
        include_dirs=[str(ROOT / "csrc")],
        extra_compile_args=[*COMPILE_FLAGS, "-fvisibility-inlines-hidden"],
        # nodelete: worker threads and exit handlers outlive any dlclose.
        extra_link_args=["-Wl,-s", "-pthread", "-Wl,--no-undefined", "-Wl,-z,nodelete",
                         f"-Wl,--version-script={ROOT}/csrc/driver/{name}/exports.map"],
        language="c++",
    )


def torch_extension(name, names, groups, **options):
    extension = CppExtension(
        name,
        sources(names) + grouped(groups),
        # Kineto's headers, which torch ships beside its own.
        include_dirs=[str(ROOT / "csrc"), str(Path(torch.__file__).parent / "include" / "kineto")],
        extra_compile_args=COMPILE_FLAGS,
        **options,
    )
    extension.libraries = [library for library in extension.libraries if "libtorch_openreg" not in name or library != "torch_python"]
    return extension


def extensions():
    return [
        *(driver_extension(name) for name in DRIVER_SOURCES),
        torch_extension("torch_openreg.lib.libtorch_openreg", TORCH_SOURCES, TORCH_GROUPS, extra_link_args=LINK_FLAGS),
        torch_extension(
            "torch_openreg._C",
            "",
            PYTHON_GROUPS,
            libraries=["torch_openreg"],
            extra_link_args=[*LINK_FLAGS, "-Wl,-rpath,$ORIGIN/lib"],
        ),
    ]


class BuildAll(BuildExtension):
    """Builds the libraries in order, then writes the build's facts and the public headers beside them."""

    def get_ext_filename(self, fullname):
        if ".lib." in fullname or fullname.startswith("lib"):
            return str(Path(*fullname.split("."))) + ".so"
        return super().get_ext_filename(fullname)

    def build_extensions(self):
        self.check_tools()
        for extension in self.extensions:
            if extension.name == "torch_openreg._C":
                extension.library_dirs.insert(0, str(Path(self.build_lib).resolve() / "torch_openreg" / "lib"))
        super().build_extensions()
        self.write_facts(Path(self.build_lib) / "torch_openreg")

    def copy_extensions_to_source(self):
        (ROOT / "torch_openreg" / "lib").mkdir(exist_ok=True)
        super().copy_extensions_to_source()
        self.write_facts(ROOT / "torch_openreg")

    def write_facts(self, package):
        (package / "_build_info.py").write_text(
            '"""Written by setup.py: what this installation was built with."""\n\n'
            f"VERSION = {VERSION!r}\n"
            f"TORCH_VERSION = {torch.__version__.split('+')[0]!r}\n"
            f"COMPILER = {self.compiler_version!r}\n"
            f"PLATFORM = {sys.platform + '-' + platform.machine()!r}\n"
        )
        for header in PUBLIC_HEADERS.split():
            target = package / "include" / header
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / "csrc" / header, target)

    def check_tools(self):
        compiler = os.environ.get("CXX", "c++")
        try:
            found = subprocess.run([*compiler.split(), "--version"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            refuse(f"the C++ compiler {compiler!r} was not found. Install one that knows C++20 (GCC 11, Clang 14 or later), or set CXX.")
        self.compiler_version = found.stdout.splitlines()[0]
        header = Path(torch.__file__).parent / "include" / "ATen" / "core" / "Tensor.h"
        if not header.exists():
            refuse(f"the torch at {Path(torch.__file__).parent} has no C++ headers ({header} is missing). Install torch from a wheel.")
        # Two compilers at a time fit in 4 GB; ninja would start one per core plus two.
        os.environ.setdefault("MAX_JOBS", str(min(os.cpu_count() or 1, 8)))


setup(
    version=VERSION,
    # expecttest: torch.testing's operator database, which the conformance run reads, imports it.
    install_requires=[f"torch=={TORCH_MINOR[0]}.{TORCH_MINOR[1]}.*", "numpy", "expecttest", "jinja2", 'tomli; python_version < "3.11"'],
    # pytest imports the plugin's options in every run; as a package of their own they bring neither torch nor this package with them.
    packages=[*find_packages(include=["torch_openreg*"]), "torch_openreg_pytest"],
    package_dir={"torch_openreg_pytest": "torch_openreg/testing/pytest_options"},
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildAll},
    package_data={"torch_openreg": [
        "py.typed", "*.pyi", "openreg/*.pyi", "**/*.toml", "testing/conformance/packs/*", "testing/conformance/dependencies.json", "cli/memory/page.*", "testing/conformance/report/page.*",
    ]},  # fmt: skip
)

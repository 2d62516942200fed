"""Importing: any order, any number of times, nothing else in torch changes, and failures are sentences.

Each case runs in a process of its own.
"""

import pytest

NO_AUTOLOAD = {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}

USE = """
assert torch.openreg.is_available()
assert torch.ones(2, device="openreg").sum().item() == 2
"""


@pytest.fixture
def autoload(tmp_path):
    """The environment in which `import torch` finds the entry point, also when the package is built in place."""
    metadata = tmp_path / "torch_openreg-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch_openreg\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text("[torch.backends]\nopenreg = torch_openreg:_autoload\n")
    return {"TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}  # the folder is the process's working directory


@pytest.mark.parametrize(
    "imports", ["import torch", "import torch, torch_openreg", "import torch_openreg, torch", "import torch_openreg.openreg, torch"]
)
def test_every_import_order_works_with_autoload(python, autoload, imports):
    python(imports, USE, env=autoload)


@pytest.mark.parametrize("imports", ["import torch, torch_openreg", "import torch_openreg, torch"])
def test_every_import_order_works_without_autoload(python, imports):
    python(imports, USE, env=NO_AUTOLOAD)


def test_without_autoload_torch_alone_does_not_know_the_device(python, autoload):
    python("import torch; assert not hasattr(torch, 'openreg')", env=NO_AUTOLOAD)


def test_loading_twice_and_reloading_change_nothing(python, autoload):
    python(
        """
        import importlib, torch, torch_openreg
        module = torch.openreg
        torch_openreg.load()
        torch_openreg._autoload()
        importlib.reload(torch_openreg)
        assert torch.openreg is module and torch_openreg.load_error() is None
        """,
        USE,
        env=autoload,
    )


def test_torch_openreg_submodules_are_the_same_objects_under_both_names(python):
    python(
        """
        import torch_openreg.openreg.memory, torch.openreg.memory, torch.openreg.random
        import torch
        assert torch.openreg.memory is torch_openreg.openreg.memory
        assert torch.get_device_module("openreg") is torch.openreg
        """
    )


def test_import_starts_no_driver_and_no_thread(python):
    python(
        """
        import os, torch
        threads = len(os.listdir("/proc/self/task"))
        import torch_openreg
        assert not torch.openreg.is_initialized() and not torch.openreg._initialized
        assert torch.openreg.device_count() == 2 and torch.openreg.is_available()
        assert not torch.openreg.is_initialized()
        assert len(os.listdir("/proc/self/task")) == threads
        """,
        env=NO_AUTOLOAD,
    )


def test_deferred_import_loads_nothing_and_load_error_loads(python):
    python(
        """
        import sys, torch_openreg
        assert "torch" not in sys.modules
        assert torch_openreg.load_error() is None
        import torch
        """,
        USE,
        env={"TORCH_OPENREG_DEFER_LOAD": "1"},
    )


def test_deferred_autoload_keeps_the_failure_for_load_error(python, autoload):
    python(
        """
        import sys
        sys.modules["torch_openreg._C"] = None
        import torch, torch_openreg
        assert not hasattr(torch, "openreg")
        assert "cannot load its compiled extension" in str(torch_openreg.load_error())
        """,
        env={"TORCH_OPENREG_DEFER_LOAD": "1", **autoload},
    )


BREAK_EXTENSION = 'import sys; sys.modules["torch_openreg._C"] = None\n'
BREAK_BUILD = 'import sys; sys.modules["torch_openreg._build_info"] = None\n'
OTHER_MINOR = """
import sys, types
info = types.ModuleType("torch_openreg._build_info")
info.VERSION, info.TORCH_VERSION = "0.1.0", "2.99.0"
sys.modules[info.__name__] = info
"""


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        (BREAK_EXTENSION, "cannot load its compiled extension because of this error"),
        (BREAK_BUILD, "has no compiled extension: build it with"),
        (OTHER_MINOR, "was built against torch 2.99.0 and cannot be used with torch 2."),
    ],
    ids=["broken extension", "not built", "other torch minor"],
)
def test_a_failing_import_is_one_sentence_with_the_cause(python, autoload, cause, sentence):
    for env in (NO_AUTOLOAD, autoload):
        result = python(cause, "import torch_openreg", env=env, check=False)
        last_line = result.stderr.strip().splitlines()[-1]
        assert result.returncode == 1
        assert last_line.startswith("ImportError: torch_openreg") and sentence in last_line
        assert "undefined symbol" not in result.stderr


def test_a_failing_autoload_shows_the_cause_and_how_to_go_on(python, autoload):
    result = python(OTHER_MINOR, "import torch", env=autoload, check=False)
    assert result.returncode == 1
    assert "ImportError: torch_openreg 0.1.0 was built against torch 2.99.0" in result.stderr
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in result.stderr


def test_torch_works_after_torch_openreg_failed_to_load(python, autoload):
    python(
        BREAK_EXTENSION,
        """
        try:
            import torch_openreg
        except ImportError:
            pass
        import torch
        assert torch.ones(2).sum() == 2
        """,
        env=NO_AUTOLOAD,
    )


def test_a_second_out_of_tree_backend_is_refused_by_name(python):
    result = python(
        'import torch; torch.utils.rename_privateuse1_backend("otherchip"); import torch_openreg',
        env=NO_AUTOLOAD,
        check=False,
    )
    assert "'otherchip' is already loaded" in result.stderr.strip().splitlines()[-1]


def test_import_adds_at_most_150_ms(python):
    code = """
        import time, torch
        start = time.process_time()  # of this process: a busy machine does not count
        import torch_openreg
        print(time.process_time() - start)
    """
    python(code, env=NO_AUTOLOAD)  # warms the file cache
    assert min(float(python(code, env=NO_AUTOLOAD).stdout) for _ in range(3)) <= 0.150


# What import may change in torch: the hooks for out-of-tree devices, all by torch's own functions.
DOCUMENTED_HOOKS = {
    "torch.openreg",
    "torch.utils.backend_registration._privateuse1_backend_name",
    *(
        f"torch._C.{place}.{name}"
        for place in ("_profiler.ProfilerActivity", "_autograd.DeviceType")
        for name in ("OPENREG", "__repr__", "__str__", "name")
    ),
    *(
        f"torch.{holder}.{name}"
        for holder in ("Tensor", "nn.utils.rnn.PackedSequence", "storage.TypedStorage", "storage._StorageBase")
        for name in ("openreg", "is_openreg")
    ),
    "torch.nn.modules.module.Module.openreg",
}


def test_import_changes_nothing_in_torch_beyond_the_documented_hooks(python):
    result = python(
        """
        import sys, types, torch
        import torch._dynamo, torch._inductor.config, torch.distributed, torch.multiprocessing
        import torch.profiler, torch.utils.checkpoint, torch.utils.data

        def identity(value):
            return value, value.__code__ if type(value) is types.FunctionType else None

        def snapshot():
            seen = {}
            for module_name, module in list(sys.modules.items()):
                if isinstance(module, types.ModuleType) and module_name.split(".")[0] == "torch":
                    for name, value in list(vars(module).items()):
                        seen[f"{module_name}.{name}"] = identity(value)
                        if isinstance(value, type) and str(value.__module__).split(".")[0] == "torch":
                            place = f"{value.__module__}.{value.__qualname__}"
                            for member, content in list(vars(value).items()):
                                seen[f"{place}.{member}"] = identity(content)
            return seen, set(sys.modules)

        before, modules = snapshot()
        import torch_openreg
        after, _ = snapshot()

        def same(name):
            return name in before and name in after and all(a is b for a, b in zip(before[name], after[name]))

        caches = ("__abstractmethods__", "_abc_impl", "__warningregistry__")
        for name in sorted(set(before) | set(after)):
            # A torch module that only gets imported is not a change of torch.
            is_new_module = sys.modules.get(name) is not None and name not in modules and name != "torch.openreg"
            in_new_module = name.rpartition(".")[0] not in modules and name.startswith("torch.openreg.")
            if not same(name) and not is_new_module and not in_new_module and name.rpartition(".")[2] not in caches:
                print(name)
        """,
        env=NO_AUTOLOAD,
    )
    assert set(result.stdout.split()) == DOCUMENTED_HOOKS


def test_the_public_headers_and_libraries_are_where_the_package_says(python):
    python(
        """
        import os, torch_openreg
        assert os.path.isfile(os.path.join(torch_openreg.get_lib_dir(), "libopenreg_sim.so"))
        headers = [name for _, _, files in os.walk(torch_openreg.get_include()) for name in files]
        assert "openreg_hal.h" in headers, headers
        """
    )

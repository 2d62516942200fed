"""The conformance kit's openreg_hal.h for Python, loaded by its path, because these tests run without torch and so without the package."""

import importlib.util
import pathlib
import sys

_path = pathlib.Path(__file__).resolve().parents[2] / "torch_openreg" / "testing" / "conformance" / "hal.py"
_spec = importlib.util.spec_from_file_location(__name__, _path)
sys.modules[__name__] = importlib.util.module_from_spec(_spec)  # what `import hal` gives
_spec.loader.exec_module(sys.modules[__name__])

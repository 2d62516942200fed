"""The part of the pytest plugin that every run of pytest imports: options, fixtures and the mark. Installed as `torch_openreg_pytest`.

It stands apart so that a run which does not ask for the device imports neither torch nor torch_openreg. pytest_plugin.py has what runs when one asks.
"""

from __future__ import annotations

import contextlib

import pytest

_SETTINGS = ("devices", "memory", "schedule", "sanitize")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("openreg", "openreg, the accelerator that is simulated on the CPU")
    group.addoption("--openreg", action="store_true", help="use the device, and fail tests that leave it other than they found it; every option below implies it")
    group.addoption("--openreg-devices", metavar="N", help="number of devices (default: 2)")
    group.addoption("--openreg-memory", metavar="SIZE", help="memory of each device, such as 2GiB")
    group.addoption("--openreg-schedule", metavar="SCHEDULE", help="eager, lazy or random:SEED")
    group.addoption("--openreg-sanitize", metavar="MODES", help="what to look for: races,lifetime,init,bounds,leaks")
    group.addoption("--openreg-strict", action="store_true", help="fail tests that run a line of the project which names cuda, and check hot sections")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "openreg(memory=None, schedule=None, hot=False, check=True): how the test uses openreg: the memory that each device has for it, such as '64MiB'; "
        "another schedule; whether its body is a hot section in strict mode; whether it is checked for what it leaves behind",
    )
    settings = {name: config.getoption(f"openreg_{name}") for name in _SETTINGS}
    if config.getoption("openreg") or config.getoption("openreg_strict") or any(value is not None for value in settings.values()):
        from torch_openreg.testing.pytest_plugin import Plugin

        config.pluginmanager.register(Plugin(settings, strict=config.getoption("openreg_strict"), root=config.rootpath), "openreg-device")


def _plugin(request: pytest.FixtureRequest) -> object:
    plugin = request.config.pluginmanager.get_plugin("openreg-device")
    if plugin is None:
        pytest.skip("needs the openreg device: run pytest with --openreg")
    return plugin


@pytest.fixture
def openreg_device(request: pytest.FixtureRequest) -> object:
    """torch.device("openreg", 0). Skips the test in a run without --openreg."""
    return _plugin(request).devices()[0]


@pytest.fixture
def openreg_devices(request: pytest.FixtureRequest) -> object:
    """A list of all openreg devices. Skips the test in a run without --openreg."""
    return _plugin(request).devices()


@pytest.fixture
def openreg_hot(request: pytest.FixtureRequest) -> object:
    """`with openreg_hot():` is a hot section in strict mode, and nothing otherwise."""
    plugin = request.config.pluginmanager.get_plugin("openreg-device")
    return plugin.hot_section if plugin is not None else contextlib.nullcontext

"""The device under test: importing its backend, a first check, waiting for it, and asking whether it still works."""

import importlib
import importlib.metadata

import torch


class UnusableDevice(RuntimeError):
    """The device cannot be tested at all; the message says why and what to do."""


class DeviceUnderTest:
    """One device, by its name as in `torch.device(name)`; index 0 unless the name has one.

    keeps_values: False for `meta`, whose results have everything but values, which are not compared then.

    Raises UnusableDevice when the module cannot be imported, torch does not know the device, or a value copied to
    the device and back is not the same. Registers nothing and does not change the current device.
    """

    def __init__(self, name: str, module: str = ""):
        self.name, self.module = name, module
        self.device = load(name, module)
        self.keeps_values = self.device.type != "meta"
        if self.keeps_values:
            self._check_round_trip()
        self._wait = _synchronizer(self.device)
        self.checks_health = self.healthy()  # a device too young for `ones` and `add` is not asked again

    def synchronize(self) -> None:
        """Waits for all work of the device; late errors are raised here. Nothing to wait for on a synchronous device."""
        if self._wait is not None:
            self._wait(self.device)

    def healthy(self) -> bool:
        """Whether ones(3) + 1 == 2 on the device."""
        try:
            return bool(((torch.ones(3, device=self.device) + 1).cpu() == 2).all())
        except Exception:
            return False

    def kernels(self) -> list[str]:
        """The operators that have a kernel of this device type, as in aten::add.out, sorted. What a fallback does is not among them."""
        key = torch._C._dispatch_key_for_device(self.device.type)
        return sorted(torch._C._dispatch_get_registrations_for_dispatch_key(key))

    def _check_round_trip(self) -> None:
        values = torch.tensor([1.0, 2.0, 3.0])
        try:
            back = values.to(self.device).cpu()
        except Exception as error:
            raise UnusableDevice(
                f"device {self.name!r} cannot be tested: copying three float32 values to it and back raises "
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            ) from error
        if not torch.equal(values, back):
            raise UnusableDevice(
                f"device {self.name!r} cannot be tested: [1, 2, 3] copied to it comes back as {back.tolist()}"
            )


def load(name: str, module: str = "") -> torch.device:
    """Imports the device's module and returns the device, by the same rules, without using it."""
    _import(module or ("torch_openreg" if name.partition(":")[0] == "openreg" else ""))
    _autoload(module, name)
    return _parse(name, module)


class DriverUnderTest(DeviceUnderTest):
    """openreg's driver alone, for the checks of L0: it may be one that runs no tensor yet. Does not start the device.

    Raises UnusableDevice when torch_openreg cannot be imported.
    """

    def __init__(self, name: str, module: str = ""):
        self.name, self.module = name, module
        self.device = load(name, module)
        self.keeps_values = True
        self._wait = None
        self.checks_health = False


def open_device(name: str, module: str = "", levels=()) -> DeviceUnderTest:
    """The device for rows of these levels: openreg's driver alone when they are those of L0 only. Raises UnusableDevice."""
    if set(levels) == {"L0"}:
        return DriverUnderTest(name, module)
    try:
        return DeviceUnderTest(name, module)
    except UnusableDevice as error:
        if name.partition(":")[0] != "openreg":
            raise
        raise UnusableDevice(f"{error}; `--level L0` checks its driver alone") from error


def _import(module: str) -> None:
    if not module:
        return
    try:
        imported = importlib.import_module(module)
    except Exception as error:
        raise UnusableDevice(f"cannot import {module!r}: {type(error).__name__}: {error}") from error
    failure = getattr(imported, "load_error", lambda: None)() if module == "torch_openreg" else None
    if failure is not None:
        raise UnusableDevice(f"torch_openreg cannot load: {failure}; run `openreg doctor`") from failure


def _autoload(module: str, name: str) -> None:
    """Calls the module's entry point of the group torch.backends, as `import torch` does, when the import alone registered no device of that name."""
    for entry in importlib.metadata.entry_points(group="torch.backends") if module else ():
        if entry.module == module and torch._C._get_privateuse1_backend_name() != name.partition(":")[0]:
            try:
                entry.load()()
            except Exception as error:
                raise UnusableDevice(f"the entry point {entry.value!r} raises {type(error).__name__}: {error}") from error


def _parse(name: str, module: str) -> torch.device:
    hint = "" if module else "; name the module that registers it with --import MODULE"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UnusableDevice(f"torch does not know the device {name!r}{hint} ({str(error).splitlines()[0]})") from error
    if device.index is None and device.type not in ("cpu", "meta", "mps"):
        device = torch.device(device.type, 0)
    return device


def _synchronizer(device: torch.device):
    """`torch.<device>.synchronize` where there is one, else torch.accelerator's for an accelerator, else None."""
    if device.type == "cpu":
        return None
    module = getattr(torch, device.type, None)
    if hasattr(module, "synchronize"):
        return (lambda _: module.synchronize()) if device.type == "mps" else module.synchronize
    current = torch.accelerator.current_accelerator()
    return torch.accelerator.synchronize if current is not None and current.type == device.type else None

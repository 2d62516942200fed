"""The pytest plugin when it is active: sets the device up, and looks at what each test does with it and leaves behind.

pytest_options has the options and the fixtures; docs/testing-your-library.md tells how to use them.
"""

from __future__ import annotations

import contextlib
import math
import os
import site
import sys
import sysconfig
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from torch_openreg import driver, load
from torch_openreg.testing.cuda_watch import CudaWatch, describe

_MARK_ARGUMENTS = {"memory": None, "schedule": None, "hot": False, "check": True}


class Plugin:
    """What `--openreg` registers. UsageError for a setting that makes no sense, or a device that cannot be loaded."""

    def __init__(self, settings: dict[str, str | None], *, strict: bool, root: Path) -> None:
        for name, value in settings.items():
            if value is not None:
                os.environ[f"OPENREG_{name.upper()}"] = value  # child processes of tests have it, too
        try:
            driver.read_settings()
            load()
        except (ValueError, ImportError) as error:
            text = str(error)
            for name in (name for name, value in settings.items() if value is not None):
                text = text.replace(f"OPENREG_{name.upper()} ", f"--openreg-{name} ")
            raise pytest.UsageError(text) from error
        _apply(settings)
        self.strict = strict
        self._memory: Any = None  # MemoryCheck of the test that runs
        self._ending: pytest.Item | None = None  # the test whose fixtures end
        self._leak = ""
        self._in_wide_fixture = False
        self._root = str(root)
        self._installed = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")} | {*site.getsitepackages()})

    def devices(self) -> list[Any]:
        import torch

        return [torch.device("openreg", index) for index in range(torch.openreg.device_count())]

    def hot_section(self) -> contextlib.AbstractContextManager[None]:
        from torch_openreg.testing.hot_section import hot_section

        return hot_section() if self.strict else contextlib.nullcontext()

    def pytest_report_header(self) -> str:
        settings = driver.read_settings()
        told = [f"{name} {value}" for name, value in settings.options.items()]
        if settings.sanitize:
            told.append(f"sanitize {','.join(settings.sanitize)}")
        return f"openreg: {', '.join(told) or 'default settings'}{f', strict for lines under {self._root}' if self.strict else ''}"

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            _mark_of(item)  # a wrong mark stops the run before its first test

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        from torch_openreg.testing.device_check import MemoryCheck

        self._memory = MemoryCheck(item.nodeid) if _mark_of(item)["check"] else None
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, Any, Any]:
        """What fixtures of a class, module or session take is theirs, not the test's that happens to be the first."""
        if fixturedef.scope == "function" or self._in_wide_fixture or self._memory is None:
            return (yield)
        from torch_openreg.testing.device_check import memory_in_use

        before = memory_in_use()
        self._in_wide_fixture = True
        try:
            return (yield)
        finally:
            self._in_wide_fixture = False
            self._memory.allow(before)
            fixturedef.addfinalizer(self._look_at_memory)  # before it gives its own back

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        mark = _mark_of(item)
        memory = self._memory
        with contextlib.ExitStack() as stack:
            stack.callback(setattr, self, "_memory", None)  # after an exception, whose traceback keeps tensors alive
            if mark["check"]:
                stack.enter_context(_checked(item.nodeid))
            if mark["schedule"]:
                import torch

                stack.enter_context(torch.openreg.schedule(mark["schedule"]))
            if mark["memory"]:
                stack.enter_context(_limited(mark["memory"]))
            if self.strict:
                stack.enter_context(self._without_cuda(item))
                if mark["hot"]:
                    stack.enter_context(self.hot_section())
            result = yield
        self._memory = memory
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Once its own fixtures have ended, a test has given its memory back."""
        self._ending, self._leak = item, ""
        result = yield
        self._look_at_memory()
        self._ending = None
        if self._leak:
            pytest.fail(self._leak, pytrace=False)
        return result

    def _look_at_memory(self) -> None:
        if self._ending is None:
            return
        memory, self._memory = self._memory, None
        if memory is not None and memory.grown():
            _forget_what_pytest_keeps(self._ending)
            try:
                memory.finish()
            except AssertionError as error:
                self._leak = str(error)

    @contextlib.contextmanager
    def _without_cuda(self, item: pytest.Item) -> Iterator[None]:
        with CudaWatch(self._is_of_the_project) as watch:
            yield
        if watch.places:
            places = "\n".join(f"  {line}" for line in describe(watch.places))
            pytest.fail(f"Lines that name cuda ran, so another device takes another way here, or none:\n{places}", pytrace=False)

    def _is_of_the_project(self, file: str) -> bool:
        return file.startswith(self._root + os.sep) and not file.startswith(self._installed)


def _apply(settings: dict[str, str | None]) -> None:
    """What a conftest.py that imports torch, or uses a device, has been too early for."""
    import torch

    late = [f"--openreg-{name}" for name in ("devices", "memory", "schedule") if settings[name] is not None]
    if late and torch.openreg.is_initialized():
        raise pytest.UsageError(f"{', '.join(late)} cannot be followed: a conftest.py has used a device already. Let a fixture do that.")
    if settings["sanitize"] is not None:
        torch.openreg.sanitizer.enable(settings["sanitize"])


@contextlib.contextmanager
def _checked(name: str) -> Iterator[None]:
    """DeviceCheck without the memory, whose own failures and late errors come without a traceback of this plugin."""
    from torch_openreg.testing.device_check import DeviceCheck

    check = DeviceCheck(name, memory=False)
    check.__enter__()
    try:
        yield
    except BaseException:
        check.__exit__(*sys.exc_info())
        raise
    try:
        check.__exit__(None, None, None)
    except AssertionError as error:
        text = str(error)
    except Exception as error:
        text = f"After the test a wait for the device raised {type(error).__name__}: {error}"
    else:
        return
    pytest.fail(text, pytrace=False)


def _forget_what_pytest_keeps(item: pytest.Item) -> None:
    """The values of fixtures, and the attributes of the test's instance, which pytest keeps until the session ends."""
    getattr(item, "funcargs", {}).clear()
    instance = vars(item).get("_instance") or getattr(vars(item).get("_obj"), "__self__", None)
    getattr(instance, "__dict__", {}).clear()


def _mark_of(item: pytest.Item) -> dict[str, Any]:
    """The arguments of the test's nearest mark over the defaults."""
    arguments = dict(_MARK_ARGUMENTS)
    for mark in reversed(list(item.iter_markers("openreg"))):
        unknown = set(mark.kwargs) - set(_MARK_ARGUMENTS)
        if mark.args or unknown:
            raise pytest.UsageError(
                f"{item.nodeid}: @pytest.mark.openreg takes {', '.join(_MARK_ARGUMENTS)} by name, not {', '.join([*map(repr, mark.args), *sorted(unknown)])}."
            )
        arguments.update(mark.kwargs)
    if arguments["memory"] is not None:
        try:
            driver.parse_memory(f"{item.nodeid}: memory", arguments["memory"])
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
    if arguments["schedule"] is not None:
        try:
            driver.parse_schedule(f"{item.nodeid}: schedule", arguments["schedule"])
        except ValueError as error:
            raise pytest.UsageError(str(error)) from error
    return arguments


@contextlib.contextmanager
def _limited(memory: int | str) -> Iterator[None]:
    """Each device has this much memory, or all of its own if that is less; what is in use already counts."""
    import torch

    limit = int(driver.parse_memory("memory", memory))
    torch.openreg.empty_cache()
    before: list[float] = []
    try:
        for index in range(torch.openreg.device_count()):
            before.append(torch.openreg.get_per_process_memory_fraction(index))
            total = torch.openreg.mem_get_info(index)[1]
            # The fraction's product with the total is rounded down, so the next larger number.
            torch.openreg.set_per_process_memory_fraction(min(1.0, math.nextafter(limit / total, 1.0)), index)
        yield
    finally:
        for index, fraction in enumerate(before):
            torch.openreg.set_per_process_memory_fraction(fraction, index)

"""Settings: `torch_openreg.configure`, the OPENREG_* variables, which of them wins, and bad values."""

import re
from pathlib import Path

import pytest
from torch_openreg import driver

GIB = 2**30


@pytest.mark.parametrize(
    ("text", "size"),
    [("8GiB", 8 * GIB), ("512MiB", GIB // 2), ("1.5GiB", 3 * GIB // 2), ("2GB", 2 * 10**9), ("4096", 4096), (" 64 KiB ", 65536), ("1g", GIB)],
)
def test_sizes_are_read_with_their_units(text, size):
    assert driver.read_settings({"OPENREG_MEMORY": text}).options == {"memory": str(size)}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENREG_DEVICES", "two"),
        ("OPENREG_DEVICES", "0"),
        ("OPENREG_DEVICES", "-1"),
        ("OPENREG_DEVICES", "65"),
        ("OPENREG_MEMORY", "lots"),
        ("OPENREG_MEMORY", "0"),
        ("OPENREG_MEMORY", "-8GiB"),
        ("OPENREG_MEMORY", "8GiBs"),
        ("OPENREG_SCHEDULE", "fast"),
        ("OPENREG_SCHEDULE", "random"),
        ("OPENREG_SCHEDULE", "random:x"),
        ("OPENREG_SCHEDULE", "random:18446744073709551616"),
        ("OPENREG_MEMORY", "65537GiB"),
        ("OPENREG_MEMORY", "9" * 400),
        ("OPENREG_LAUNCH_BLOCKING", "off"),
        ("OPENREG_LAUNCH_TRACE", "no"),
    ],
)
def test_a_bad_variable_is_a_value_error_that_names_it(variable, value):
    with pytest.raises(ValueError, match=f"{variable} is .*, not '{value}'"):
        driver.read_settings({variable: value})


def test_the_largest_values_are_named_and_taken():
    largest = {"OPENREG_MEMORY": "65536GiB", "OPENREG_SCHEDULE": "random:18446744073709551615", "OPENREG_LAUNCH_TRACE": "1", "OPENREG_LAUNCH_BLOCKING": "0"}
    assert driver.read_settings(largest).options == {"memory": str(2**46), "schedule": "random:18446744073709551615"}
    with pytest.raises(ValueError, match="up to 65536GiB"):
        driver.parse_memory("memory", 2**46 + 1)
    with pytest.raises(ValueError, match="up to 18446744073709551615"):
        driver.parse_schedule("schedule", "random:99999999999999999999999999")


def test_every_variable_that_is_read_is_known():
    sources = Path(__file__).resolve().parents[2]
    texts = [(sources / path).read_text() for pattern in ("csrc/**/*.cpp", "torch_openreg/**/*.py") for path in sorted(sources.glob(pattern))]
    read = {name for text in texts for name in re.findall(r"""(?:getenv\(|environment_flag\(|environ(?:\.get\(|\[))["'](OPENREG_[A-Z_]+)["']""", text)}
    assert {name for name in read if not name.startswith("OPENREG_TEST_")} <= set(driver.VARIABLES) and len(read) > 10, read


def test_unset_variables_leave_everything_to_the_driver():
    settings = driver.read_settings({})
    assert settings.options == {} and settings.visible is None and settings.layers == ()
    assert settings.driver.endswith("lib/libopenreg_sim.so")


def test_a_driver_is_given_by_name_or_path():
    assert driver.library_path("null").endswith("torch_openreg/lib/libopenreg_null.so")
    assert driver.library_path("/opt/chip/driver.so") == "/opt/chip/driver.so"


def test_layers_are_a_list():
    assert driver.read_settings({"OPENREG_LAYERS": "validate, trace,"}).layers == ("validate", "trace")


def test_a_bad_variable_does_not_break_import_but_the_first_use(python):
    result = python(
        """
        import torch, torch_openreg
        assert torch.ones(2).sum() == 2
        assert not torch.openreg.is_available() and torch.openreg.device_count() == 0
        torch.ones(1, device="openreg")
        """,
        env={"OPENREG_DEVICES": "two"},
        check=False,
    )
    assert result.stderr.strip().splitlines()[-1] == (
        "ValueError: OPENREG_DEVICES is a number of devices from 1 to 64, not 'two'."
    )


def test_configure_sets_up_the_machine_and_wins_over_the_environment(python):
    python(
        """
        import torch, torch_openreg
        torch_openreg.configure(devices=3, memory="256MiB", schedule="lazy")
        assert torch.openreg.device_count() == 3
        assert torch.openreg.get_device_properties(2).total_memory == 256 * 2**20
        assert torch.openreg.device_count() == 3
        """,
        env={"OPENREG_DEVICES": "5", "OPENREG_MEMORY": "1GiB", "OPENREG_SCHEDULE": "eager"},
    )


def test_configure_can_be_called_in_steps_and_before_the_extension_loads(python):
    python(
        """
        import torch_openreg
        torch_openreg.configure(devices=1)
        torch_openreg.configure(memory=128 * 2**20)
        torch_openreg.load()
        import torch
        assert torch.openreg.device_count() == 1
        assert torch.openreg.mem_get_info()[1] == 128 * 2**20
        """,
        env={"TORCH_OPENREG_DEFER_LOAD": "1"},
    )


def test_variables_set_after_import_and_before_the_first_use_hold(python):
    python(
        """
        import os, torch, torch_openreg
        os.environ["OPENREG_DEVICES"] = "4"
        os.environ["OPENREG_VISIBLE_DEVICES"] = "3,1"
        torch.openreg.init()
        assert torch.openreg.device_count() == 2
        """
    )


def test_configure_holds_when_pinned_memory_is_the_first_use(python):
    python(
        """
        import torch, torch_openreg
        torch_openreg.configure(devices=3, memory="256MiB")
        torch.ones(2).pin_memory()
        assert torch.openreg.device_count() == 3 and torch.openreg.mem_get_info(2)[1] == 256 * 2**20
        """
    )


def test_configure_after_the_first_use_is_refused(python):
    python(
        """
        import torch, torch_openreg
        torch.openreg.init()
        try:
            torch_openreg.configure(devices=3)
        except RuntimeError as error:
            assert "before the first use of a device" in str(error)
        else:
            assert False
        assert torch.openreg.device_count() == 2
        """
    )


@pytest.mark.parametrize(
    "arguments", ["devices=0", "devices=2.5", "devices=True", "memory=-1", "memory='much'", "schedule='random:'", "schedule=3"]
)
def test_bad_arguments_are_value_errors_and_change_nothing(python, arguments):
    python(
        f"""
        import torch, torch_openreg
        try:
            torch_openreg.configure({arguments})
        except ValueError as error:
            assert str(error).startswith("{arguments.partition("=")[0]} is ")
        else:
            assert False
        assert torch.openreg.device_count() == 2
        """
    )


def test_the_default_machine_is_the_one_that_counting_assumes(python):
    python(
        """
        import torch, torch_openreg
        from torch_openreg import driver
        expected = torch.openreg.device_count()
        torch.openreg.init()
        assert torch.openreg.device_count() == expected == driver.DEFAULT_DEVICES
        total = sum(torch.openreg.mem_get_info(i)[1] for i in range(expected))
        import os
        assert total <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
        assert torch.openreg.mem_get_info(0)[1] < 16 * 2**30
        """
    )


def test_the_largest_machine_is_the_one_that_configure_allows(python):
    python(
        """
        import torch, torch_openreg
        from torch_openreg import driver
        torch_openreg.configure(devices=driver.MAX_DEVICES, memory="64MiB")
        assert torch.ones(3, device=f"openreg:{driver.MAX_DEVICES - 1}").sum().item() == 3
        """
    )


def test_a_missing_driver_library_names_path_variable_and_page(python, tmp_path):
    result = python(
        """
        import torch, torch_openreg
        assert not torch.openreg.is_available()
        torch.ones(1, device="openreg")
        """,
        env={"OPENREG_DRIVER": str(tmp_path / "no_such_driver.so")},
        check=False,
    )
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith("RuntimeError: ")
    for part in ("no_such_driver.so", "OPENREG_DRIVER", "docs/hal.md"):
        assert part in last_line


def test_a_library_that_is_no_driver_is_refused_with_the_reason(python, tmp_path):
    (tmp_path / "text.so").write_text("no library")
    result = python(
        "import torch, torch_openreg; torch.openreg.init()", env={"OPENREG_DRIVER": str(tmp_path / "text.so")}, check=False
    )
    message = result.stderr.strip()
    assert "text.so" in message and "OPENREG_DRIVER" in message and "docs/hal.md" in message


def test_an_unknown_layer_is_refused_by_name(python):
    result = python("import torch, torch_openreg; torch.openreg.init()", env={"OPENREG_LAYERS": "nonsense"}, check=False)
    assert "'nonsense'" in result.stderr and "docs/hal.md" in result.stderr


def test_the_smallest_driver_can_be_chosen_by_name(python):
    python(
        """
        import torch, torch_openreg
        assert torch_openreg._C.driver_info()["name"] == "null"
        assert torch.openreg.device_count() >= 1
        """,
        env={"OPENREG_DRIVER": "null"},
    )

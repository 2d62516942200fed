"""Fixes of core on request: nothing without it, each one needed by the torch under test, and taken back without a trace.

Needs the built extension.
"""

from pathlib import Path

import pytest
import torch

import torch_openreg
from torch_openreg import core_fixes, version

PAGE = Path(__file__).resolve().parents[2] / "docs" / "core-gaps.md"
FIXES = [gap for gap in core_fixes.GAPS if gap.fix]


@pytest.fixture
def fixed():
    yield core_fixes.apply()
    core_fixes.revert()


@pytest.mark.parametrize("gap", core_fixes.GAPS, ids=lambda gap: gap.name)
def test_core_still_has_the_gap(gap):
    assert gap.exists(), f"torch {torch.__version__} no longer has the gap '{gap.name}': end its range, and take its fix and its advice out."
    assert gap.first <= version.torch_minor() <= gap.last


@pytest.mark.parametrize("gap", FIXES, ids=lambda gap: gap.name)
def test_a_fix_mends_its_gap_and_nothing_is_left_of_it(gap):
    before = dict(vars(torch.Tensor))
    assert core_fixes.apply(gap.name) == [gap.name]
    try:
        assert not gap.exists() and core_fixes.apply(gap.name) == [gap.name]
    finally:
        core_fixes.revert()
    assert gap.exists() and dict(vars(torch.Tensor)) == before


def test_all_fixes_are_the_default_and_other_devices_are_as_before(fixed):
    assert fixed == [gap.name for gap in FIXES]
    assert torch.ones(2).__dlpack_device__() == (1, 0)
    with pytest.raises(ValueError, match="meta"):
        torch.ones(2, device="meta").__dlpack_device__()


def test_a_fix_outside_its_versions_or_without_need_is_left_out(monkeypatch):
    monkeypatch.setattr(version, "torch_minor", lambda: (9, 0))
    assert core_fixes.apply() == []
    monkeypatch.undo()
    monkeypatch.setattr(torch.Tensor, "__dlpack_device__", lambda self: (12, 0))
    assert "dlpack-device" not in core_fixes.apply()
    core_fixes.revert()


def test_torch_accelerator_shows_the_snapshot_with_the_fix(fixed):
    x = torch.ones(1000, device="openreg:1")
    snapshot = torch.accelerator.memory._snapshot()
    addresses = [block["address"] for segment in snapshot["segments"] for block in segment["blocks"]]
    assert x.data_ptr() in addresses and snapshot.keys() == torch.openreg.memory._snapshot().keys()
    assert all(segment["device"] == 0 for segment in torch.accelerator.memory._snapshot(0)["segments"])


def test_byteswap_of_device_memory_is_refused_with_the_fix(fixed, device):
    x = torch.tensor([1, 2], dtype=torch.int16, device=device)
    with pytest.raises(NotImplementedError, match=f"cannot reach memory of {device}"):
        x.untyped_storage().byteswap(torch.int16)
    assert x.tolist() == [1, 2]
    host = torch.tensor([1, 2], dtype=torch.int16)
    host.untyped_storage().byteswap(torch.int16)
    assert host.tolist() == [256, 512]


def test_an_unknown_fix_is_an_error():
    with pytest.raises(ValueError, match="'module-to' is no fix"):
        core_fixes.apply("module-to")
    assert torch_openreg.core_fixes is core_fixes


def test_the_page_is_made_from_the_list():
    assert PAGE.read_text() == core_fixes.page(), "run `python -m torch_openreg.core_fixes > docs/core-gaps.md`"

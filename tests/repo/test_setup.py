"""What a build that cannot succeed says: one sentence each, before anything is compiled. Needs a checkout and torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(tmp_path, **environment):
    """The output of a build of the checkout that puts everything under tmp_path; the build must fail."""
    arguments = ["build_ext", "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    result = subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode != 0
    return (result.stdout + result.stderr).strip().splitlines()[-1]


def fake_torch(tmp_path, version):
    """A directory with a torch package that has a version and no C++ headers."""
    package = tmp_path / "fake" / "torch" / "utils"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(f"__version__ = {version!r}\n")
    (package / "__init__.py").write_text("")
    (package / "cpp_extension.py").write_text(
        "from setuptools import Extension as CppExtension\nfrom setuptools.command.build_ext import build_ext as BuildExtension\n"
    )
    return str(package.parents[1])


@pytest.fixture(autouse=True)
def needs_setuptools():
    pytest.importorskip("setuptools", reason="a build needs setuptools, which this environment lacks")


def test_a_missing_compiler_is_one_sentence(tmp_path):
    said = build(tmp_path, CXX="/nonexistent/c++")
    assert said.startswith("torch_openreg cannot be built: the C++ compiler '/nonexistent/c++' was not found.")


@pytest.mark.parametrize("version", ["2.9.1", "2.16.0+cpu", "3.0.0"])
def test_an_unsupported_torch_is_one_sentence(tmp_path, version):
    said = build(tmp_path, PYTHONPATH=fake_torch(tmp_path, version))
    assert said == f"torch_openreg cannot be built: it supports torch 2.13 to 2.15, and this is torch {version}."


def test_missing_headers_are_one_sentence(tmp_path):
    said = build(tmp_path, PYTHONPATH=fake_torch(tmp_path, "2.13.0"))
    assert said.startswith("torch_openreg cannot be built: the torch at ") and "has no C++ headers" in said


def test_a_missing_torch_is_one_sentence(tmp_path):
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('nothing here')\n")
    said = build(tmp_path, PYTHONPATH=str(broken.parent))
    assert said.startswith("torch_openreg cannot be built: torch cannot be imported (nothing here).")

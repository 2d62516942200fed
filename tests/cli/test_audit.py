"""`openreg audit`: which lines it finds, what it leaves out, and that the program runs as it would alone."""

import json
import os
import subprocess
import textwrap

import pytest
from torch_openreg import child

LIBRARY = """
    import torch

    def best_device():
        if torch.cuda.is_available():
            return "cuda"
        return "cpu"

    def sync(x):
        \"\"\"Waits when x is on cuda.\"\"\"
        if x.is_cuda:
            raise AssertionError("never here")
        if x.device.type in ("cuda", "xpu"):
            raise AssertionError("never here")
        return x

    def never_called():
        return torch.device("cuda:0")
    """


@pytest.fixture
def library(tmp_path):
    (tmp_path / "library.py").write_text(textwrap.dedent(LIBRARY))
    return tmp_path


def audit(folder, *arguments):
    return subprocess.run(child.command("torch_openreg", "audit", *arguments), cwd=folder, capture_output=True, text=True, timeout=300)


def lines(folder, name):
    return {(place["line"], place["source"]) for place in json.loads((folder / "found.json").read_text())["places"] if place["file"].endswith("/" + name)}


def test_the_lines_that_ran_are_listed_and_others_are_not(library):
    (library / "script.py").write_text("import sys, library, torch\nlibrary.best_device()\nfor _ in range(3):\n    library.sync(torch.ones(2))\nprint(sys.argv[1:])\nsys.exit(3)\n")
    result = audit(library, "--json", "found.json", "script.py", "--flag", "a b")
    assert result.returncode == 3, result.stderr
    assert "['--flag', 'a b']" in result.stdout, "the program has its arguments and its output"
    assert lines(library, "library.py") == {
        (5, "if torch.cuda.is_available():"),
        (11, "if x.is_cuda:"),
        (13, 'if x.device.type in ("cuda", "xpu"):'),
    }
    assert "3 lines that name cuda ran, in 1 files" in result.stdout
    assert "   11      3x  sync: if x.is_cuda:" in result.stdout


def test_a_program_that_fails_is_still_reported(library):
    (library / "script.py").write_text("import library\nlibrary.best_device()\nraise KeyError('oops')\n")
    result = audit(library, "script.py")
    assert result.returncode == 1 and "KeyError: 'oops'" in result.stderr and "1 lines that name cuda ran" in result.stdout


def test_a_test_suite_runs_with_its_skips_listed(library):
    (library / "test_library.py").write_text(
        textwrap.dedent(
            """
            import library, pytest, torch

            @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
            def test_on_cuda():
                pass

            def test_on_the_device():
                assert library.sync(torch.ones(2, device="openreg")).sum().item() == 2
            """
        )
    )
    result = audit(library, "--json", "found.json", "-m", "pytest", "-q", "test_library.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "1 passed, 1 skipped" in result.stdout
    assert "1 tests were skipped" in result.stdout and "1x  needs CUDA  (test_library.py::test_on_cuda)" in result.stdout
    assert {line for line, _ in lines(library, "library.py")} == {11, 13}
    assert {line for line, _ in lines(library, "test_library.py")} == {4}


def test_only_limits_the_files(library):
    (library / "script.py").write_text("import library, torch\nlibrary.best_device()\ntorch.cuda.is_available()\n")
    audit(library, "--json", "found.json", "--only", "script.py", "script.py")
    assert lines(library, "library.py") == set() and {line for line, _ in lines(library, "script.py")} == {3}


def test_a_script_that_does_not_exist_is_a_sentence(library):
    result = audit(library, "nothing.py")
    assert result.returncode == 2 and "there is no script nothing.py" in result.stderr


def test_what_counts_as_naming_cuda():
    from torch_openreg.testing.cuda_watch import lines_with_cuda

    def found(text):
        code = compile(textwrap.dedent(text), "file", "exec")
        inner = [constant for constant in code.co_consts if hasattr(constant, "co_code")]
        return set().union(*(lines_with_cuda(code) for code in [code, *inner]))

    assert found('x = "cuda"\ny = "cuda:1"\nz = ("cpu", "cuda")') == {1, 2, 3}
    assert found("import torch.cuda") == {1} and found("from torch import cuda") == {1} and found("x.cuda()\nx.is_cuda") == {1, 2}
    assert found('f"cuda:{i}"') == {1} and found('def f():\n    """About cuda."""\n    return "cuda graphs"') == set()
    assert found('"cudagraphs"\nx.cuda_stream\ncudart = 1') == set()


def test_a_debugger_that_traces_is_a_sentence(tmp_path):
    from torch_openreg.testing import cuda_watch

    if cuda_watch._MONITORING is not None:
        pytest.skip("from Python 3.12 on, the watch and a tracer work side by side")
    code = "import sys; sys.settrace(lambda *_: None)\nfrom torch_openreg.testing.cuda_watch import CudaWatch\nwith CudaWatch(bool): pass"
    environment = {**os.environ, "TORCH_OPENREG_DEFER_LOAD": "1"}
    result = subprocess.run([os.sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 1 and "Another tool traces this program" in result.stderr

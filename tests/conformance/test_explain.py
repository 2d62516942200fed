"""`openreg conformance explain`: what it says of an operator on devices with a kernel, with parts of one, and with none. Needs the built package."""

import json

import pytest
import torch

import torch_openreg

FAILURE = torch_openreg.load_error()
pytestmark = pytest.mark.skipif(FAILURE is not None, reason=f"openreg is not available: {FAILURE}")


def told(name, device="cuda", results=()):
    """The facts about an operator, title -> text. A build without CUDA has no kernels there: the device of somebody who begins."""
    from torch_openreg.testing.conformance.explain import explain

    first, *lines = explain(name, torch.device(device), results).splitlines()
    assert first == name
    facts, title = {}, ""
    for line in lines:
        width = next(i for i in range(len(line), 0, -1) if line[:i].isspace()) if line.startswith("    ") else 2
        if width == 2:
            title, _, text = line[2:].partition("  ")
            facts[title.partition(" (")[0]] = text.strip()
        else:
            facts[title.partition(" (")[0]] += "\n" + line.strip()
    return facts


@pytest.fixture(autouse=True)
def without_cuda():
    if torch.backends.cuda.is_built():
        pytest.skip("this build of torch has kernels for CUDA, and the tests need a device without any")


def test_an_operator_that_needs_a_kernel_gets_the_declaration_to_fill():
    facts = told("aten::addmm.out")
    assert facts["schema"].startswith("aten::addmm.out(Tensor self, Tensor mat1")
    assert facts["kind"] == "needs a kernel from each device"
    assert facts["kernels"].startswith("CPU yes, CUDA no, Meta yes")
    assert "nn.functional.linear" in facts["operators"] and "nn.LSTM" in facts["modules"] and "bert (" in facts["models"]
    assert facts["to do"].startswith("register a kernel at CUDA:")
    assert "at::Tensor & addmm_out(const at::Tensor & self, const at::Tensor & mat1, const at::Tensor & mat2," in facts["to do"]
    assert 'TORCH_LIBRARY_IMPL(aten, CUDA, m) { m.impl("addmm.out", addmm_out); }' in facts["to do"]


def test_a_structured_operator_asks_for_its_out_form():
    facts = told("aten::gelu")
    assert facts["kind"].startswith("structured") and "aten::gelu.out" in facts["parts"]
    assert facts["to do"].startswith("kernels for aten::empty") and "aten::gelu.out" in facts["to do"]
    assert facts["decomposition"].startswith("in torch._decomp")


def test_a_composite_operator_needs_nothing():
    facts = told("aten::matmul")
    assert facts["kind"].startswith("composite") and "aten::mm" in facts["parts"] and facts["to do"] == "nothing: PyTorch calls its parts"
    assert told("aten::linalg_norm")["parts"].count("aten::linalg_vector_norm") == 1


def test_a_kernel_or_a_fallback_of_the_device_is_told():
    assert told("aten::addmm", "openreg")["to do"] == "nothing: openreg has a kernel"
    assert "PrivateUse1 (openreg) yes" in told("aten::addmm", "openreg")["kernels"]
    assert "has a fallback for every operator" in told("aten::linalg_qr.out", "openreg")["to do"]
    assert told("aten::add.Tensor", "cpu")["to do"] == "nothing: cpu has a kernel"


def test_rows_of_a_run_are_counted_and_the_failing_ones_shown():
    from torch_openreg.testing.conformance.result import RowResult

    rows = [
        RowResult("sin", "float32", "forward", "openreg", "pass"),
        RowResult("cos", "float32", "forward", "openreg", "mismatch", "output: far off"),
        RowResult("add", "float32", "forward", "openreg", "pass"),
    ]
    facts = told("aten::cos", "openreg", rows[1:])
    assert "1 mismatch" in facts["rows"] and "cos:float32:forward: output: far off" in facts["rows"]
    assert "openreg conformance repro 'cos:float32:forward' --device openreg" in facts["to do"]
    assert "rows" not in told("aten::mm", "openreg", rows)


@pytest.mark.parametrize(
    "given, first", [("addmm", "aten::addmm"), ("aten::add.out", "aten::add.out"), ("aten.add.Tensor", "aten::add.Tensor"), ("aten::nothing", None)]
)
def test_names_are_taken_in_every_spelling(given, first):
    from torch_openreg.testing.conformance.explain import overloads

    assert next(iter(overloads(given)), None) == first


def test_rows_of_another_device_are_left_out(tmp_path, capsys):
    from torch_openreg.testing.conformance import explain
    from torch_openreg.testing.conformance.report import ResultFile
    from torch_openreg.testing.conformance.result import RowResult

    with ResultFile(tmp_path) as file:
        file.add(RowResult("cos", "float32", "forward", "openreg:1", "error", "far off"))
    for device, rows in (("openreg", 2), ("cpu", 0)):
        config = {"operator": "aten.cos", "device": device, "module": "", "packs": (), "results": str(tmp_path)}
        assert explain.main(config) == 0 and capsys.readouterr().out.count("cos:float32:forward: far off") == rows  # aten::cos and aten::cos.out


def test_what_cannot_be_explained_is_a_sentence(capsys):
    from torch_openreg.testing.conformance import explain

    config = {"operator": "addmm", "device": "nochip", "module": "", "packs": (), "results": ""}
    assert explain.main(config) == 2 and "torch does not know the device 'nochip'" in capsys.readouterr().err
    assert explain.main({**config, "device": "cpu", "operator": "aten::nothing"}) == 2 and "no operator aten::nothing" in capsys.readouterr().err


def test_the_tables_fit_the_torch_that_runs():
    from torch_openreg.testing.conformance import dependencies

    names = set(torch._C._dispatch_get_all_op_names())
    known = {name for row in dependencies.rows().values() for part in row.values() for name in part} | set(dependencies.composites())
    assert len(known & names) > 0.95 * len(known)


def test_the_whole_way_from_a_run_to_an_explanation(openreg, tmp_path):
    device = ("--device", "fakechip", "--import", "fakechip")
    faults = {"FAKECHIP_FAULTS": "aten::cos=unsupported;aten::cos.out=unsupported"}
    run = openreg("conformance", "run", *device, "--ops", "cos,rsub", "--mode", "forward", "--dtypes", "float32", "--samples", "1",
                  "--workers", "1", "--out", tmp_path, env=faults)  # fmt: skip
    assert run.returncode == 1, run.stdout + run.stderr
    assert "what to fix first (1 causes" in run.stdout and "1 rows, 2 models  aten::cos" in run.stdout
    (cause,) = json.loads((tmp_path / "ranking.json").read_text())["causes"]
    assert cause["missing"] and cause["needed_by"] == ["cos"] and "llama" in cause["model_names"]
    page = (tmp_path / "report.html").read_text()
    assert "What to fix first" in page and "1 more for 100%: aten::cos" in page
    said = openreg("conformance", "explain", cause["name"], *device, "--results", tmp_path, env=faults)
    assert said.returncode == 0 and "1 rows that need it fail" in said.stdout, said.stdout + said.stderr
    assert "cos:float32:forward: call: NotImplementedError: the chip has no such kernel" in said.stdout

"""A sample of the suite under every mode: the sanitizer finds nothing in programs that are right, and what is found fails its test.

The whole suite under the sanitizer is a command in CONTRIBUTING.md.
"""

import pytest
from inner_suite import TESTS, inner_suite

SAMPLE = ["runtime/test_event.py", "aten/test_resize.py"]


@pytest.mark.parametrize("modes", ["races,lifetime,init,bounds", "poison"])
def test_nothing_is_found_in_the_suite(modes, tmp_path):
    result = inner_suite(*(TESTS / name for name in SAMPLE), folder=tmp_path, env={"OPENREG_SANITIZE": modes})
    assert result.returncode == 0, result.stdout[-8000:] + result.stderr[-2000:]


def test_a_finding_fails_the_test_that_it_arises_in(tmp_path):
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_programs.py").write_text("""
import pytest, torch, torch_openreg

def race():
    side, a = torch.openreg.Stream(), torch.ones(64, device="openreg")
    with torch.openreg.stream(side):
        a.add_(1)

def test_wrong():
    race()

def test_that_swallows_errors():
    race()
    with pytest.raises(RuntimeError):
        torch.openreg.synchronize()
        raise RuntimeError("its own")

def test_right():
    torch.ones(64, device="openreg").add_(1)

@pytest.mark.findings("races", reason="wrong on purpose")
def test_wrong_on_purpose():
    race()

@pytest.mark.findings("races", reason="a mark that is not true")
def test_marked_and_right():
    torch.ones(64, device="openreg").add_(1)

@pytest.mark.findings("init", reason="another mode")
def test_marked_for_another_mode():
    race()
""")
    result = inner_suite(tmp_path / "test_programs.py", "-rA", folder=tmp_path, env={"OPENREG_SANITIZE": "races"})
    outcomes = {line.split("::")[1].split()[0]: line.split()[0] for line in result.stdout.splitlines() if line.startswith(("PASSED ", "ERROR ", "FAILED "))
                and "::" in line}
    bad = {name for name, outcome in outcomes.items() if outcome != "PASSED"}
    assert {"test_wrong", "test_that_swallows_errors", "test_marked_and_right", "test_marked_for_another_mode"} <= bad, result.stdout
    assert "test_right" not in bad and "test_wrong_on_purpose" not in bad, result.stdout
    assert "nothing orders them" in result.stdout and "The sanitizer found nothing" in result.stdout

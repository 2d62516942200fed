"""Commands that write a file at their end say at their start that they cannot. No program runs, and no torch is imported."""

import os
import signal
import stat
import subprocess

import pytest
from torch_openreg import child, cli

GAPS = '[[gap]]\nop = "add"\nkind = "unsupported"\nreason = "x"\n'
COMMANDS = {
    "audit": lambda path: ["audit", "--json", path, "program.py"],
    "trace": lambda path: ["trace", "-o", path, "program.py"],
    "record": lambda path: ["conformance", "record", "--out", path, "program.py"],
    "gaps": lambda path: ["conformance", "gaps", "gaps.toml", "--test-configs", path],
    "update from": lambda path: ["conformance", "gaps", path, "--update-from", "results"],
    "run": lambda path: ["conformance", "run", "--device", "cpu", "--ops", "add", "--gaps", path, "--update"],
}


@pytest.fixture(params=COMMANDS)
def refusal(request, tmp_path, monkeypatch, capfd):
    """refusal(path): the sentence with which the command refuses to write there, before it starts anything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_OPENREG_DEFER_LOAD", "1")
    (tmp_path / "program.py").write_text("open('ran', 'w').close()\n")
    (tmp_path / "gaps.toml").write_text(GAPS)

    def run(path):
        status = cli.main(COMMANDS[request.param](path))
        out, err = capfd.readouterr()
        assert status == 2 and out == "" and not (tmp_path / "ran").exists() and err.count("\n") == 1, (status, out, err)
        return err

    return run


def test_a_missing_folder_a_folder_and_a_file_for_a_folder_are_refused(refusal, tmp_path):
    assert f"there is no folder {tmp_path}/missing to write x.jsonl in" in refusal("missing/x.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    assert "folder.jsonl is a folder" in refusal("folder.jsonl")
    assert "program.py is not a directory" in refusal("program.py/x.jsonl")
    if os.geteuid() != 0:  # for whom nothing is forbidden
        (tmp_path / "folder.jsonl").chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert "permission denied" in refusal("folder.jsonl/x.jsonl")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_whose_reader_has_gone_ends_quietly(tmp_path, unbuffered):
    (tmp_path / "gaps.toml").write_text(GAPS)
    read, write = os.pipe()
    os.close(read)  # as head does
    command = child.command("torch_openreg", "conformance", "gaps", str(tmp_path / "gaps.toml"))
    try:
        done = subprocess.run(command, env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, stdout=write, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("before, words, out, rest", [
    (["--out", "mine.jsonl"], ["--out", "theirs.jsonl"], "mine.jsonl", ["--out", "theirs.jsonl"]),
    ([], ["--epochs", "3", "--out", "mine.jsonl"], "mine.jsonl", ["--epochs", "3"]),
    ([], [], "program.jsonl", []),
], ids=["both", "last", "neither"])
def test_record_takes_one_out_only(monkeypatch, tmp_path, before, words, out, rest):
    import json

    from torch_openreg.cli.conformance import record

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_OPENREG_DEFER_LOAD", "1")
    (tmp_path / "program.py").write_text("")
    tasks = []
    monkeypatch.setattr(record.child, "run_program", lambda module, task: tasks.append(json.loads(task)) or 0)
    assert cli.main(["conformance", "record", *before, "program.py", *words]) == 0
    assert (tasks[0]["out"], tasks[0]["arguments"]) == (str(tmp_path / out), rest)

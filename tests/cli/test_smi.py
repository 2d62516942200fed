"""`openreg smi`: what it shows of devices, streams and processes. Needs torch_openreg."""

import json
import os
import signal
import subprocess

import pytest
import torch
import torch_openreg  # noqa: F401
from torch_openreg import child
from torch_openreg.cli import smi

MIB = 2**20
LOOK = {
    "time": "2026-01-02T03:04:05",
    "driver": {"name": "sim", "major": 1, "minor": 5},
    "devices": [
        {"index": 0, "name": "a chip", "memory_bytes": 8 << 30, "compute_units": 1, "used_bytes": 5 * MIB, "utilization": 40, "streams": 3,
         "processes": [{"pid": 7, "name": "python train.py", "used_bytes": 5 * MIB}]},
        {"index": 1, "name": "a chip", "memory_bytes": 8 << 30, "compute_units": 1, "used_bytes": None, "utilization": None, "streams": None,
         "processes": None},
    ],
}  # fmt: skip


def test_a_look_is_a_table():
    lines = smi.render(LOOK).splitlines()
    assert lines[0] == "2026-01-02T03:04:05  driver sim (HAL 1.5)"
    assert lines[4].split() == ["0", "a", "chip", "5.0", "MiB", "of", "8.0", "GiB", "3", "40%"]
    assert lines[5].split() == ["1", "a", "chip", "?", "of", "8.0", "GiB", "?", "?"]
    assert lines[8].split() == ["0", "7", "5.0", "MiB", "python", "train.py"]


def test_a_machine_without_devices_or_users_says_so():
    empty = smi.render({**LOOK, "devices": []})
    assert "no devices" in empty and "no process has memory" in empty
    assert "does not know the processes" in smi.render({**LOOK, "devices": LOOK["devices"][1:]})


def run(*arguments, **options):
    environment = {**os.environ, "OPENREG_DEVICES": "2", "OPENREG_MEMORY": "512MiB", **options.pop("env", {})}
    return subprocess.run(child.command("torch_openreg", "smi", *arguments), env=environment, capture_output=True, text=True, timeout=120, **options)


def test_this_process_is_seen_from_another_one():
    held = torch.ones(3 * MIB, dtype=torch.uint8, device="openreg:1")
    torch.openreg.synchronize(1)
    result = run("--json")
    assert result.returncode == 0, result.stderr
    look = json.loads(result.stdout)
    assert [device["memory_bytes"] for device in look["devices"]] == [512 * MIB] * 2
    mine = [process for process in look["devices"][1]["processes"] if process["pid"] == os.getpid()]
    assert len(mine) == 1 and mine[0]["used_bytes"] >= held.nbytes and "python" in mine[0]["name"]
    assert look["devices"][1]["streams"] >= 1 and 0 <= look["devices"][1]["utilization"] <= 100


def test_utilization_follows_the_work(device):
    torch.openreg.synchronize(device)
    with torch.openreg.device(device):
        torch.openreg._sleep(3_000_000_000)
        assert torch.openreg.utilization() > 50
    torch.openreg.synchronize(device)
    assert torch.openreg.device_memory_used(device) >= torch.openreg.memory_reserved(device)
    assert torch.openreg.clock_rate(device) == 1000


def test_a_broken_setting_is_a_sentence():
    result = run(env={"OPENREG_MEMORY": "lots"})
    assert result.returncode == 2 and "openreg doctor" in result.stderr and "OPENREG_MEMORY" in result.stderr


def test_watch_looks_until_it_is_stopped():
    command = child.command("torch_openreg", "smi", "--json", "--watch", "0.1")
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        looks = [json.loads(watch.stdout.readline()) for _ in range(2)]
        assert all(len(look["devices"]) >= 1 for look in looks)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(60) == 0, watch.stderr.read()
    finally:
        watch.kill()
        watch.communicate()


@pytest.mark.parametrize("text", ["0", "-1", "x", "3601"])
def test_a_wrong_time_is_refused(text):
    result = run(f"--watch={text}")
    assert result.returncode == 2 and "--watch" in result.stderr

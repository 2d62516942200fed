"""A sample of PyTorch's operator database on openreg, in this process: every operator, few inputs, both devices in turn.
The main job's modes run for every operator, each of the others for a part of them that its name decides.

Needs the built package. `openreg conformance run` runs more samples in processes of their own. A failing row prints its command.
"""

import zlib

import pytest

import torch_openreg

FAILURE = torch_openreg.load_error()
pytestmark = pytest.mark.skipif(FAILURE is not None, reason=f"openreg is not available: {FAILURE}")

# mode and dtype -> samples per row; about a minute in all
SELECTION = {
    ("forward", "float32"): 3,
    ("gradient", "float32"): 2,
    ("forward", "int64"): 1,
    ("forward", "bool"): 1,
    ("forward", "float16"): 1,
    ("forward", "bfloat16"): 1,
    ("forward", "complex64"): 1,
}
# The other modes: mode and dtype -> one row in so many, with one sample; about a minute in all
OTHER_MODES = {
    ("gradgrad", "float32"): 4,
    ("forward_ad", "float32"): 4,
    ("out", "float32"): 2,
    ("out", "int64"): 6,
    ("inplace", "float32"): 2,
    ("inplace", "int64"): 3,
    ("layouts", "float32"): 3,
    ("layouts", "complex64"): 8,
    ("views", "float32"): 6,
    ("views", "complex64"): 4,
    ("scalars", "float32"): 8,
    ("func", "float32"): 6,
    ("errors", "float32"): 2,
    ("errors", "bool"): 4,
    ("warnings", "float32"): 8,
}
PARTS = {"torch": 10, "nn.functional": 6, "linalg": 3, "fft": 1, "special": 2, "masked": 2, "signal": 1}
SHARDS = [(family, part, parts) for family, parts in PARTS.items() for part in range(1, parts + 1)]


@pytest.mark.parametrize("number", range(len(SHARDS)), ids=["{}-{}-of-{}".format(*shard) for shard in SHARDS])
def test_a_sample_of_the_operator_database(number, on_a_short_stack):
    from torch_openreg.testing.conformance import rows

    on_a_short_stack(lambda: run_shard(number, lambda operators: [(row, SELECTION[row.mode, row.dtype]) for row in rows.select(operators)]))


@pytest.mark.parametrize("number", range(len(SHARDS)), ids=["{}-{}-of-{}".format(*shard) for shard in SHARDS])
def test_a_sample_of_the_other_modes(number, on_a_short_stack):
    from torch_openreg.testing.conformance import rows

    def chosen(operators):
        return [
            (row, 4 if row.mode == "errors" else 1)
            for row in rows.select(operators, modes=rows.MODES, dtypes={dtype for _, dtype in OTHER_MODES})
            if (share := OTHER_MODES.get((row.mode, row.dtype))) and zlib.crc32(row.id.encode()) % share == 0
        ]

    on_a_short_stack(lambda: run_shard(number, chosen))


def run_shard(number, choose):
    """Runs what `choose` takes of a shard's operators: rows with their number of samples."""
    from torch_openreg.testing.conformance import gaps, report, rows, run_row
    from torch_openreg.testing.conformance.device import DeviceUnderTest
    from torch_openreg.testing.conformance.execution import operators

    family, part, parts = SHARDS[number]
    device = DeviceUnderTest(f"openreg:{number % 2}")
    known = gaps.read(gaps.default_file("openreg"))
    names = sorted({row.op for row in rows.select(operators().values()) if (row.family if row.family in PARTS else "torch") == family})[part - 1 :: parts]
    assert names, f"no operator belongs to the family {family}"
    results = [
        gaps.apply(known, run_row(row.op, row.dtype, row.mode, device, samples=samples))
        for row, samples in choose([operators()[name] for name in names])
    ]
    wrong = [r for r in results if (r.failing and r.gap != "covered") or r.gap == "unexpected pass"]
    assert not wrong, "\n".join(
        f"{r.gap or r.outcome}: {r.sentence}\n    {report.repro_command(r, f'--device {device.name}')}" for r in wrong
    )

"""Model packs: what the recorder writes, what rows make of it, and that both devices pass the packs that ship. Needs the built package."""

import json
from pathlib import Path

import pytest
import torch

import torch_openreg

FAILURE = torch_openreg.load_error()
pytestmark = pytest.mark.skipif(FAILURE is not None, reason=f"openreg is not available: {FAILURE}")
SMALL = ("bert", "llama", "resnet18", "t5", "vit", "whisper")


@pytest.fixture(autouse=True)
def shipped_packs_again():
    from torch_openreg.testing.conformance.databases import model

    yield
    model.use(())


def recorded(program, device="cpu"):
    """The pack of program()."""
    from torch_openreg.testing.conformance.recorder import Recorder

    with Recorder(torch.device(device)) as recorder:
        program()
    return recorder.pack("mine", "a test")


def calls(pack, op):
    return [call for call in pack.calls if call["op"] == op]


def written(pack, tmp_path, name="mine.jsonl"):
    from torch_openreg.testing.conformance import pack as packs
    from torch_openreg.testing.conformance.databases import model

    packs.write(pack, tmp_path / name)
    model.use([tmp_path / name])
    return tmp_path / name


def drawn(op, dtype, seed=0):
    from torch_openreg.testing.conformance.databases import model

    return model.draw(model.entries()[f"model.mine.{op}"], getattr(torch, dtype, dtype), "call", seed)


def test_a_backward_is_recorded_below_autograd_and_equal_calls_are_counted():
    weight = torch.randn(3, 3, requires_grad=True)

    def program():
        torch.nn.functional.gelu(torch.nn.functional.linear(torch.ones(2, 3), weight)).sum().backward()

    pack = recorded(lambda: (program(), program()))
    (backward,) = calls(pack, "aten.gelu_backward.default")
    assert backward["count"] == 2
    assert backward["args"][0] == {"tensor": "float32", "size": [2, 3], "stride": [0, 0], "low": 0}
    assert not calls(pack, "aten.linear.default")  # a composite, whose parts the device sees
    assert pack.recorded == sum(call["count"] for call in pack.calls)


@pytest.mark.parametrize("place", ["cpu", "openreg"])
def test_the_same_program_gives_the_same_calls_on_every_device(place):
    def program():
        x = torch.randn(4, 6, device=place, requires_grad=True)
        (x[:, 1:4].softmax(-1) * torch.arange(3, device=place)).sum().backward()

    pack = recorded(program, place)
    assert [call["op"] for call in pack.calls] == [call["op"] for call in recorded(program, place).calls]
    (softmax,) = calls(pack, "aten._softmax.default")
    assert softmax["args"] == [{"tensor": "float32", "size": [4, 3], "stride": [6, 1], "offset": 1}, -1, False]
    (arange,) = calls(pack, "aten.arange.default")
    assert arange["kwargs"]["device"] == {"device": True}


def test_fused_attention_is_recorded_as_the_function_that_every_device_has():
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    pack = recorded(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True))
    ((*_, mask, dropout, causal),) = [call["args"] for call in calls(pack, "aten.scaled_dot_product_attention.default")]
    assert (mask, dropout, causal) == (None, 0.0, True)
    assert calls(pack, "aten.scaled_dot_product_attention.default")[0]["kwargs"]["enable_gqa"] is True


def test_what_a_pack_cannot_hold_is_counted_with_its_reason():
    pack = recorded(lambda: torch.eye(3).to_sparse().sum())
    assert pack.left_out["a tensor is not strided"] >= 1


def test_drawn_calls_have_the_geometry_and_the_ranges_of_the_recorded_ones(tmp_path):
    table, memory = torch.randn(50, 4), torch.zeros(40)
    labels = torch.tensor([5, 48, -100, 7, 9, 11, 13, 15, 17])

    def program():
        torch.nn.functional.embedding(torch.tensor([[7, 49], [7, 3]]), table)
        torch.nn.functional.cross_entropy(torch.randn(9, 50), labels)
        table.t()[1:, ::2].exp()
        memory[3:13].copy_(memory[20:30])
        torch.ones(3).masked_fill(torch.ones(3, dtype=torch.bool), float("-inf"))
        torch.ones(6).index_copy_(0, torch.tensor([4, 0, 2]), torch.ones(3))

    written(recorded(program), tmp_path, "mine.jsonl.gz")
    for seed in range(5):
        weight, indices = drawn("aten.embedding.default", "float32", seed)[0].input
        assert (weight.shape, indices.shape, indices.dtype) == ((50, 4), (2, 2), torch.int64)
        assert 3 <= indices.min() and indices.max() <= 49
        target = drawn("aten.nll_loss_forward.default", "float32", seed)[0].input[1]
        assert set(target.tolist()) <= {-100, *range(5, 49)} and -100 in target
        (exp,) = drawn("aten.exp.default", "float32", seed)[0].input
        assert (exp.shape, exp.stride(), exp.storage_offset()) == ((3, 25), (1, 8), 1)
        into, source = drawn("aten.copy_.default", "float32", seed)[0].input
        assert into.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
        assert source.storage_offset() - into.storage_offset() == 17
        _, mask, filler = drawn("aten.masked_fill.Scalar", "float32", seed)[0].input
        assert bool(mask.all()) and filler == float("-inf")
        places = drawn("aten.index_copy_.default", "float32", seed)[0].input[2]
        assert places.unique().numel() == 3 and places.max() <= 4
    again = drawn("aten.embedding.default", "float32", 3)
    assert torch.equal(again[0].input[0], again[0].input[0])


def test_a_pack_is_sorted_and_reads_back_as_it_was_written(tmp_path):
    from torch_openreg.testing.conformance import pack as packs

    made = recorded(lambda: (torch.ones(3) * 2, torch.ones(2) + 1, torch.zeros(3)))
    path = written(made, tmp_path)
    header, *lines = path.read_text().splitlines()
    assert lines == sorted(lines) and json.loads(header)["distinct"] == len(lines)
    packs.write(packs.read(path), tmp_path / "mine.jsonl.gz")
    packs.write(packs.read(tmp_path / "mine.jsonl.gz"), path)
    assert path.read_text().splitlines() == [header, *lines]


@pytest.mark.parametrize(
    "text, said",
    [
        ('{"pack": "x", "format": 9, "torch": "2", "made_from": "", "recorded": 0, "left_out": {}}\n', "reads format 1"),
        ("not json\n", "is not a model pack"),
        ('{"pack": "x", "format": 1, "torch": "2", "made_from": "", "recorded": 0, "left_out": {}}\n{"op": "a"}\n', "is not a model pack"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_pack_is_refused_with_a_sentence(tmp_path, text, said):
    from torch_openreg.testing.conformance import pack as packs

    if text is not None:
        (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(packs.PackError, match=said):
        packs.read(tmp_path / "x.jsonl")
    with pytest.raises(packs.PackError, match="letters, digits"):
        packs.name_for(Path("a.b.jsonl"))
    with pytest.raises(packs.PackError, match="llama_512"):
        packs.find("nothing")


def test_at_least_five_packs_ship_and_two_have_real_sizes():
    from torch_openreg.testing.conformance import pack as packs

    found = {name: packs.read(path) for name, path in packs.shipped().items()}
    assert set(found) == {*SMALL, "llama_512", "resnet18_64"}
    assert any(call["op"] == "aten.mm.default" and call["args"][0]["size"] == [512, 512] for call in found["llama_512"].calls)
    for pack in found.values():
        assert len(pack.operators) > 25 and pack.recorded > 400, pack.name


def test_the_shipped_packs_are_what_their_programs_call():
    import make_packs

    from torch_openreg.testing.conformance import pack as packs

    shipped = packs.read(packs.shipped()["resnet18"])
    if shipped.torch != torch.__version__.partition("+")[0]:
        pytest.skip(f"the packs were made with torch {shipped.torch}; another version calls other operators")
    with torch.random.fork_rng(devices=[]):
        assert make_packs.record("resnet18").calls == shipped.calls


@pytest.mark.parametrize("place, every", [("openreg:0", 3), ("openreg:1", 3), ("cpu", 8)])
def test_calls_of_small_models_pass(place, every, one_thread, on_a_short_stack):
    from torch_openreg.testing.conformance import databases, report, run_row
    from torch_openreg.testing.conformance.device import DeviceUnderTest

    device = DeviceUnderTest(place)
    chosen = [row for row in databases.select(databases.DATABASES["model"]) if row.op.split(".")[1] in SMALL]
    chosen = chosen[(place == "openreg:1") :: every]
    results = on_a_short_stack(lambda: [run_row(row.op, row.dtype, row.mode, device, samples=4) for row in chosen])
    wrong = [result for result in results if result.outcome != "pass"]
    assert not wrong, "\n".join(f"{r.outcome}: {r.sentence}\n    {report.repro_command(r, f'--device {device.name}')}" for r in wrong)


def run(row_id, samples=2):
    from torch_openreg.testing.conformance import run_row
    from torch_openreg.testing.conformance.rows import parse_id

    row, _ = parse_id(row_id)
    return run_row(row.op, row.dtype, row.mode, device="openreg", samples=samples)


@pytest.mark.parametrize(
    "row, fault, said",
    [
        ("model.bert.aten.view.default:float32:call", lambda call, args, kwargs: call(args, **kwargs).clone(), "memory of output"),
        ("model.bert.aten.addmm.default:float32:call", lambda call, args, kwargs: call(args, **kwargs) + 1, "output: Tensor-likes are not close"),
        ("model.bert.aten._foreach_add_.List:float32:call", lambda call, args, kwargs: None, "argument after the call"),
        ("model.resnet18.aten.threshold_backward.default:float32:call", lambda call, args, kwargs: call(args, **kwargs).contiguous(), "strides"),
    ],
)  # fmt: skip
def test_a_wrong_device_fails(row, fault, said, monkeypatch):
    from torch_openreg.testing.conformance.databases import model
    from torch_openreg.testing.conformance.samples import tensors

    right = model.ModelOperator.__call__

    def wrong(self, args, **kwargs):
        if any(tensor.device.type == "openreg" for tensor in tensors((args, kwargs))):
            return fault(lambda *a, **k: right(self, *a, **k), args, kwargs)
        return right(self, args, **kwargs)

    assert run(row).outcome == "pass"
    monkeypatch.setattr(model.ModelOperator, "__call__", wrong)
    result = run(row)
    assert result.outcome == "mismatch" and said in result.sentence, result.sentence


def test_a_script_is_recorded_and_its_pack_runs_and_repeats(openreg, tmp_path, monkeypatch, capsys, one_thread):
    from torch_openreg.testing.conformance import repro

    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, torch\nx = torch.randn(int(sys.argv[1]), 3, requires_grad=True)\n(x.tanh() * torch.arange(3)).sum().backward()\n"
    )
    done = openreg("conformance", "record", script, "5", "--out", tmp_path / "mine.jsonl")
    assert done.returncode == 0 and "distinct, of" in done.stdout, done.stdout + done.stderr
    done = openreg("conformance", "run", "--device", "cpu", "--pack", tmp_path / "mine.jsonl", "--level", "L6", "--workers", "1")
    assert done.returncode == 0 and "model/call" in done.stdout, done.stdout + done.stderr
    config = {"row": "model.mine.aten.tanh_backward.default:float32:call#0", "device": "cpu", "module": "", "seed": 0, "samples": None, "full": False,
              "pack": [str(tmp_path / "mine.jsonl")]}  # fmt: skip
    monkeypatch.setattr("sys.argv", ["repro", json.dumps(config)])
    monkeypatch.setattr("faulthandler.enable", lambda: None)  # of the process that a user starts
    assert repro.main() == 0
    said = capsys.readouterr().out
    assert "size=(5, 3)" in said and "on cpu: pass" in said, said


def test_nothing_to_record_is_a_sentence(openreg, tmp_path):
    (tmp_path / "idle.py").write_text("print('idle')\n")
    done = openreg("conformance", "record", tmp_path / "idle.py", "--out", tmp_path / "idle.jsonl")
    assert done.returncode == 1 and "makes no call on cpu" in done.stderr
    assert not (tmp_path / "idle.jsonl").exists()


def test_what_cannot_be_recorded_or_run_is_a_sentence(tmp_path, monkeypatch, capsys):
    from torch_openreg.cli import main

    monkeypatch.setenv("TORCH_OPENREG_DEFER_LOAD", "1")
    assert main(["conformance", "record", str(tmp_path / "missing.py")]) == 2
    assert "there is no script" in capsys.readouterr().err
    (tmp_path / "mine.py").write_text("")
    assert main(["conformance", "record", "--out", "a.b.jsonl", str(tmp_path / "mine.py")]) == 2
    assert "letters, digits" in capsys.readouterr().err
    assert main(["conformance", "run", "--pack", "llama", "--level", "L3"]) == 2
    assert "--pack is for the rows of level L6" in capsys.readouterr().err

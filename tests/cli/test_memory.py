"""`openreg memory`: the summary, the page, and the page in a browser. Needs torch_openreg for real snapshots, and Chromium for what is
drawn; without Chromium those tests are skipped."""

import json
import os
import pickle
import re

import pytest
import torch
import torch_openreg  # noqa: F401
from browser import assert_loads_nothing, browse, elements  # noqa: F401
from torch_openreg.cli import main
from torch_openreg.cli.memory import page, report, snapshot, summary

MIB = 2**20


@pytest.fixture(autouse=True)
def environment_of_the_command(monkeypatch):
    monkeypatch.setenv("TORCH_OPENREG_DEFER_LOAD", "1")  # main() sets it for its process


def allocate(size, device):
    return torch.empty(size, dtype=torch.uint8, device=device)


def allocate_otherwise(size, device):
    return torch.empty(size, dtype=torch.uint8, device=device)


@pytest.fixture
def dumped(tmp_path):
    """A file with a snapshot of both devices: blocks kept, a block freed, a failure, an annotation. And the kept tensors."""
    torch.openreg.synchronize()
    torch.openreg.empty_cache()
    torch.openreg.memory._record_memory_history(stacks="python")
    kept = [allocate(40 * MIB, "openreg:0"), allocate_otherwise(3 * MIB, "openreg:0"), allocate(5 * MIB, "openreg:1")]
    with torch.profiler.record_function("a range"):
        freed = allocate_otherwise(12 * MIB, "openreg:0")
        del freed
    with pytest.raises(torch.OutOfMemoryError):
        allocate(2**50, "openreg:0")
    path = tmp_path / "snapshot.pickle"
    torch.openreg.memory._dump_snapshot(str(path))
    torch.openreg.memory._record_memory_history(None)
    yield path, kept
    kept.clear()


def facts_of(path):
    return report.build(snapshot.read(path))


def test_the_report_has_the_allocators_numbers(dumped):
    path, _ = dumped
    for index, device in enumerate(facts_of(path)["devices"]):
        stats = torch.openreg.memory_stats(index)
        totals = device["totals"]
        assert device["index"] == index
        assert totals["reserved"] == stats["reserved_bytes.all.current"]
        assert totals["allocated"] == stats["allocated_bytes.all.current"]
        assert totals["rounding"] == stats["allocated_bytes.all.current"] - stats["requested_bytes.all.current"]
        assert totals["segments"] == stats["segment.all.current"] and totals["blocks"] == stats["allocation.all.current"]
        assert totals["free"] == totals["reserved"] - totals["allocated"] and totals["pending"] == 0


def test_the_report_follows_memory_over_time(dumped):
    path, _ = dumped
    device = facts_of(path)["devices"][0]
    before = device["totals"]["active_requested"] - 43 * MIB
    steps = [(action, requested - before) for action, (requested, _) in zip(device["actions"], device["curve"]) if action in ("alloc", "free_completed")]
    assert steps == [("alloc", 40 * MIB), ("alloc", 43 * MIB), ("alloc", 55 * MIB), ("free_completed", 43 * MIB)]
    assert device["curve"][device["peak"]][0] - before == 55 * MIB
    assert device["curve"][-1] == [device["totals"]["active_requested"], device["totals"]["reserved"]]
    assert device["times"] == sorted(device["times"]) and device["times"][0] == 0
    assert [(oom[1], oom[2] > 0) for oom in device["ooms"]] == [(2**50, True)]
    (annotation,) = device["annotations"]
    assert annotation[0] == "a range" and annotation[1] < annotation[2]


def test_the_report_has_the_life_and_the_maker_of_each_allocation(dumped):
    path, kept = dumped
    facts = facts_of(path)
    device = facts["devices"][0]
    lives = {allocation[1]: allocation for allocation in device["allocations"]}
    address, _, begin, end, stack, _ = lives[40 * MIB]
    assert address == kept[0].data_ptr() and device["actions"][begin] == "alloc" and end is None
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+ in allocate", facts["stacks"][stack]["label"])
    assert device["actions"][lives[12 * MIB][3]] == "free_completed"
    sites = {site["label"].rpartition(" ")[2]: site for site in device["sites"]}
    assert (sites["allocate"]["now"], sites["allocate"]["count"], sites["allocate"]["at_peak"]) == (40 * MIB, 1, 40 * MIB)
    assert (sites["allocate_otherwise"]["now"], sites["allocate_otherwise"]["at_peak"]) == (3 * MIB, 15 * MIB)


def entry(action, addr, size, **more):
    return {"action": action, "addr": addr, "size": size, "stream": 0, "time_us": 0, **more}


def segment(address, *blocks):
    made = [{"address": address, "size": size, "requested_size": size, "state": state, "frames": []} for size, state in blocks]
    return {"device": 0, "address": address, "total_size": sum(size for size, _ in blocks), "stream": 0, "blocks": made, "frames": []}


def build(segments, trace):
    return report.build({"segments": segments, "device_traces": [trace], "external_annotations": []})["devices"][0]


def test_what_was_there_before_the_trace_has_no_begin():
    device = build(
        [segment(0, (512, "active_allocated"), (1024, "inactive"))],
        [entry("free_requested", 512, 1024), entry("free_completed", 512, 1024)],
    )
    assert [life[:4] for life in device["allocations"]] == [[512, 1024, None, 1], [0, 512, None, None]]
    assert device["curve"] == [[1536, 1536], [512, 1536]]


def test_memory_that_is_gone_is_still_on_the_map():
    device = build([segment(0, (512, "inactive"))], [
        entry("segment_alloc", 4096, 512), entry("alloc", 4096, 512), entry("free_requested", 4096, 512), entry("free_completed", 4096, 512),
        entry("segment_free", 4096, 512),
    ])
    assert device["ranges"] == [[0, 512], [4096, 512]]
    assert device["curve"] == [[0, 1024], [512, 1024], [512, 1024], [0, 1024], [0, 512]]


def test_a_trace_without_completed_frees_ends_allocations_at_the_request():
    device = build([segment(0, (512, "inactive"))], [entry("alloc", 0, 512), entry("free_requested", 0, 512)])
    assert [life[:4] for life in device["allocations"]] == [[0, 512, 0, 1]] and device["curve"] == [[512, 512], [0, 512]]


@pytest.mark.parametrize("frames, expected", [
    ([("at::empty", "x.cpp"), ("relu", "/site/torch/nn/functional.py"), ("forward", "/home/me/model.py"), ("main", "/home/me/main.py")],
     "/home/me/model.py:7 in forward"),
    ([("relu", "/site/torch/nn/functional.py"), ("call", "/site/torch/nn/module.py")], "/site/torch/nn/functional.py:7 in relu"),
    ([("openreg::run()", "??"), ("at::_ops::mul_Tensor::call(at::Tensor const&)", "??"),
      ("torch::autograd::generated::MulBackward0::apply(std::vector)", "??")], "torch::autograd::generated::MulBackward0::apply (C++)"),
    ([("main()", "main.cpp")], "main (C++)"),
    ([], report.NO_STACK),
])
def test_a_stack_is_named_after_the_users_line(frames, expected):
    assert report.label([{"name": name, "filename": file, "line": 7} for name, file in frames]) == expected


@pytest.mark.skipif("OPENREG_ALLOC_CONF" in os.environ or "PYTORCH_ALLOC_CONF" in os.environ, reason="The lines are those of the default settings.")
def test_the_summary_tells_totals_makers_and_segments(dumped, capsys):
    path, _ = dumped
    assert main(["memory", str(path), "--no-page"]) == 0
    text = capsys.readouterr().out
    first, second = text.split("device 1\n")
    reserved = summary.size(torch.openreg.memory_reserved(0))
    assert re.search(rf"reserved +{re.escape(reserved)} +in \d+ segments?\n", first)
    assert re.search(r"40\.0 MiB +1x +40\.0 MiB at the peak .*test_memory\.py:\d+ in allocate\n", first)
    assert re.search(r"40\.0 MiB \[#{32}\] 100% used, large, stream 0", first)
    assert re.search(r"out of memory at event \d+: 1024\.0 TiB wanted, .* in allocate\n", first)
    assert re.search(r"5\.0 MiB +1x", second)
    assert not path.with_suffix(".html").exists()
    main(["memory", str(path), "--no-page", "--top", "1"])
    assert re.search(r"    and \d+ more\n", capsys.readouterr().out)


def test_sizes_have_units():
    assert [summary.size(value) for value in (0, 1023, 1024, 3 * MIB // 2, 5 * 2**30, 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 GiB", "1024.0 TiB"]


def test_the_page_is_one_file_that_may_load_nothing(dumped, capsys):
    path, _ = dumped
    assert main(["memory", str(path)]) == 0
    assert capsys.readouterr().out.rstrip().endswith(f"page: {path.with_suffix('.html')}")
    text = path.with_suffix(".html").read_text()
    parsed = elements(text)
    assert_loads_nothing(text)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert json.loads(parsed.text["snapshot"]) == json.loads(json.dumps(facts_of(path)))


def test_what_a_snapshot_says_cannot_become_markup():
    frames = [{"name": "</script><script>alert(1)</script>", "filename": "<b>.py", "line": 1}]
    one = segment(0, (512, "active_allocated"))
    one["blocks"][0]["frames"] = frames
    text = page.html(report.build({"segments": [one], "device_traces": [], "external_annotations": []}), "$DATA<i>")
    assert text.count("</script>") == 2 and "<b>" not in text and "<i>" not in text
    assert json.loads(elements(text).text["snapshot"])["frames"][0][0] == frames[0]["name"]


def test_snapshots_of_other_devices_and_lists_of_segments_are_read(tmp_path):
    (tmp_path / "list.pickle").write_bytes(pickle.dumps([segment(0, (512, "inactive"))]))
    assert facts_of(tmp_path / "list.pickle")["devices"][0]["totals"]["free"] == 512
    (tmp_path / "empty.pickle").write_bytes(pickle.dumps({"segments": [], "device_traces": [[], []]}))
    assert "is empty" in summary.text(facts_of(tmp_path / "empty.pickle"), 10)


class Unwelcome:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("content, words", [
    (b"no pickle", "is no memory snapshot"),
    (b"", "is no memory snapshot"),
    (pickle.dumps({"a": 1}), "has no list of segments"),
    (pickle.dumps({"segments": [], "bad": Unwelcome()}), "plain values only"),
    (None, "No such file"),
], ids=["text", "empty", "other", "code", "missing"])
def test_a_file_that_is_no_snapshot_is_refused_and_not_run(content, words, tmp_path, capsys):
    path = tmp_path / "file.pickle"
    if content is not None:
        path.write_bytes(content)
    assert main(["memory", str(path)]) == 2
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.startswith("openreg memory: ") and printed.out == ""
    assert not path.with_suffix(".html").exists()


def test_the_snapshot_is_not_overwritten(tmp_path, capsys):
    path = tmp_path / "snapshot.html"
    path.write_bytes(pickle.dumps({"segments": []}))
    assert main(["memory", str(path)]) == 2 and "would overwrite" in capsys.readouterr().err
    assert pickle.loads(path.read_bytes()) == {"segments": []}


def test_the_command_needs_no_torch(dumped, python):
    path, _ = dumped
    done = python(
        f"""
        import os, sys
        os.environ["TORCH_OPENREG_DEFER_LOAD"] = "1"
        from torch_openreg.cli import main
        assert main(["memory", {str(path)!r}]) == 0
        assert "torch" not in sys.modules
        """,
        fresh=True,
    )
    assert "device 1" in done.stdout


@pytest.fixture
def drawn(dumped, capsys):
    path, kept = dumped
    main(["memory", str(path)])
    return path.with_suffix(".html"), kept


def test_the_browser_draws_totals_timeline_and_segments(drawn, browse):
    file, kept = drawn
    seen = browse(file)
    shapes = [attributes for tag, attributes in seen.found if tag in ("rect", "path")]
    assert {a["data-block"] for a in shapes if a.get("class") == "box" and "data-block" in a} >= {str(kept[0].data_ptr()), str(kept[1].data_ptr())}
    assert len([a for a in shapes if "data-allocation" in a]) >= 3
    assert {"requested", "reserved", "oom"} <= {a.get("class") for a in shapes}
    assert [a["data-device"] for tag, a in seen.found if tag == "button" and "data-device" in a] == ["0", "1"]
    values = [text.strip() for text in seen.text["dd"].splitlines()]
    assert summary.size(torch.openreg.memory_reserved(0)) in "".join(values)


def test_a_click_on_a_block_shows_its_stack(drawn, browse):
    file, kept = drawn
    seen = browse(file, script=f"""
        document.querySelector('[data-block="{kept[1].data_ptr()}"]').dispatchEvent(new MouseEvent("click", {{bubbles: true}}));
        document.body.append(document.getElementById("details").innerText);
    """)
    text = "".join(seen.text.values())
    assert hex(kept[1].data_ptr()) in text and "3.0 MiB" in text and "active allocated" in text
    assert re.search(r"allocate_otherwise .*test_memory\.py:\d+", text)
    assert [a for _, a in seen.found if "selected" in (a.get("class") or "") and a.get("data-block") == str(kept[1].data_ptr())]


def test_the_pointer_over_a_block_shows_its_size_and_line(drawn, browse):
    file, kept = drawn
    seen = browse(file, script=f"""
        document.querySelector('[data-block="{kept[0].data_ptr()}"]').dispatchEvent(new MouseEvent("mousemove", {{bubbles: true}}));
    """)
    assert re.match(rf"40\.0 MiB, {40 * MIB} B requested\n.*test_memory\.py:\d+ in allocate", seen.text["tip"])


def test_an_address_selects_a_device_and_an_allocation(drawn, browse):
    file, kept = drawn
    seen = browse(file, f"device=1&block={kept[2].data_ptr()}")
    assert ("button", "true", "1") in [(tag, a.get("aria-pressed"), a.get("data-device")) for tag, a in seen.found]
    assert hex(kept[2].data_ptr()) in "".join(seen.text.values())
    assert [a for _, a in seen.found if "selected" in (a.get("class") or "")]


def test_the_axis_can_be_time_and_an_empty_snapshot_says_so(drawn, browse, tmp_path):
    file, _ = drawn
    seen = browse(file, script='document.querySelector("[value=time]").click();')
    assert "a range" in "".join(seen.text.values())
    (tmp_path / "empty.html").write_text(page.html(report.build({"segments": [], "device_traces": [], "external_annotations": []}), "empty"))
    assert "The snapshot is empty" in "".join(browse(tmp_path / "empty.html").text.values())


def test_a_long_trace_and_many_segments_and_lines_are_drawn_in_part_and_it_says_so(browse, tmp_path):
    trace, live = [], []
    for number in range(60_000):
        frames = [{"name": "f", "filename": f"file{number % 700}.py", "line": 1}]
        live.append(number % 4000)
        trace.append(entry("alloc", 512 * live[-1], 1 + number % 512, frames=frames, time_us=3 * number))
        trace.append(entry("free_completed", 512 * live[-1], 1 + number % 512, time_us=3 * number + 1))
    segments = [segment(512 * number, (512, "inactive")) for number in range(4000)]
    facts = report.build({"segments": segments, "device_traces": [trace], "external_annotations": []})
    (tmp_path / "long.html").write_text(page.html(facts, "long"))
    seen = browse(tmp_path / "long.html")
    text = "".join(seen.text.values())
    assert "The 40000 smallest allocations are not drawn." in text and "Show 3800 more segments" in text
    assert len([a for _, a in seen.found if "data-allocation" in a]) == 20_000
    (path,) = [a["d"] for _, a in seen.found if a.get("class") == "requested"]
    assert path.startswith("M") and path.count("H") < 2000

"""torch.openreg.sanitizer and OPENREG_SANITIZE: when findings are printed and raised, what the process ends with, and the switch."""

import gc

import pytest
import torch
import torch_openreg  # noqa: F401

sanitizer = torch.openreg.sanitizer

RACE = """
import torch, torch_openreg
side = torch.openreg.Stream()
a = torch.ones(64, device="openreg")
with torch.openreg.stream(side):
    b = a.sum()
"""


@pytest.fixture
def races():
    sanitizer.enable("races,lifetime")
    yield torch.openreg.Stream(), torch.ones(64, device="openreg")
    sanitizer.disable()


def race(side, a):
    with torch.openreg.stream(side):
        return a.exp()


@pytest.mark.parametrize("wait", ["synchronize", "stream", "event", "item", "cpu"])
def test_a_finding_is_raised_by_the_next_call_that_waits(races, capfd, wait):
    side, a = races
    kept = race(side, a)
    assert "torch_openreg sanitizer: race:" in capfd.readouterr().err
    event = torch.openreg.current_stream().record_event()
    waits = {"synchronize": torch.openreg.synchronize, "stream": side.synchronize, "event": event.synchronize,
             "item": lambda: a[0].item(), "cpu": a.cpu}
    with pytest.raises(torch.openreg.SanitizerError, match="nothing orders them") as raised:
        waits[wait]()
    assert "test_sanitizer.py" in str(raised.value) and "wait_stream" in str(raised.value)
    torch.openreg.synchronize()  # once
    del kept


def test_an_error_is_a_runtime_error_and_part_of_the_module():
    assert issubclass(torch.openreg.SanitizerError, RuntimeError) and torch.openreg.SanitizerError is sanitizer.SanitizerError


def test_a_wait_of_the_engine_for_its_own_sake_raises_nothing_and_orders_nothing(races):
    side, a = races
    kept = race(side, a)
    first = torch.special.i1e(a)  # the first call of an operator waits for its metadata
    with pytest.raises(torch.openreg.SanitizerError):
        torch.openreg.synchronize()
    del kept, first


def test_a_finding_leaves_the_block_of_a_schedule_and_the_schedule_comes_back(races):
    before = torch.openreg.current_schedule()
    with pytest.raises(torch.openreg.SanitizerError):
        with torch.openreg.schedule("lazy"):
            a = torch.ones(64, device="openreg")
            kept = race(races[0], a)
    assert torch.openreg.current_schedule() == before
    del kept


def test_collected_findings_are_neither_printed_nor_raised(races, capfd):
    with sanitizer.collect() as report:
        kept = race(*races)
    assert report.kinds == ["race"] and "sanitizer" not in capfd.readouterr().err
    [finding] = report.findings
    assert [access.operator for access in finding.accesses] == ["aten::fill_.Scalar", "aten::exp"]
    assert finding.accesses[1].touched == "reads Float[64]" and "in race" in finding.accesses[1].stack
    assert finding.accesses[0].stream == "the default stream of openreg:0"
    torch.openreg.synchronize()
    del kept


def test_collect_blocks_nest(races, capfd):
    side, a = races
    with sanitizer.collect() as outer:
        kept = [race(side, a)]
        with sanitizer.collect() as inner:
            kept.append(race(side, torch.ones(64, device="openreg")))
        kept.append(race(side, torch.zeros(64, device="openreg")))  # made after the inner block has waited
    assert (len(outer.findings), len(inner.findings)) == (2, 1)
    assert "sanitizer" not in capfd.readouterr().err
    torch.openreg.synchronize()  # nothing is left to raise
    del kept


def test_switching_on_again_finds_the_same_mistake_again(races):
    for _ in range(2):
        with sanitizer.collect("races,lifetime") as report:
            kept = race(races[0], torch.ones(64, device="openreg"))
        assert report.kinds == ["race"]
        del kept


def test_a_forked_child_does_not_answer_for_its_parents_findings(sanitized):
    result = sanitized(RACE + """
import os
pid = os.fork()
if pid == 0:
    raise SystemExit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""", "races")
    assert result.stdout == "0\n" and result.returncode == 66, result.stderr


def test_the_modes_of_a_collect_block_end_with_it():
    assert sanitizer.enabled() == ()
    with sanitizer.collect("races"):
        assert sanitizer.enabled() == ("races",)
    assert sanitizer.enabled() == ()


def test_unknown_modes_are_refused(races):
    with pytest.raises(ValueError, match="'rases' is none of them"):
        sanitizer.enable("rases")
    assert sanitizer.enabled() == ("races", "lifetime")


def test_off_there_is_no_layer_and_ranges_are_not_wanted():
    assert torch_openreg._C.driver_info()["layers"] == []
    sanitizer.enable()
    assert torch_openreg._C.driver_info()["layers"] == ["sanitizer"]
    sanitizer.disable()
    assert torch_openreg._C.driver_info()["layers"] == []


def test_tensors_of_before_are_watched_from_the_switch_on():
    side, a = torch.openreg.Stream(), torch.ones(64, device="openreg")
    with sanitizer.collect("races,init") as report:
        a.add_(1)
        with torch.openreg.stream(side):
            a.add_(1)
    assert report.kinds == ["race"]


def test_an_access_chosen_by_data_is_possible_until_the_task_has_run(sanitized):
    result = sanitized(
        """
import torch, torch_openreg
torch.openreg.sanitizer.enable("races")
def program(slot, collect=torch.openreg.sanitizer.collect):
    side = torch.openreg.Stream()
    cache, rows, keys = torch.ones(8, 4, device="openreg"), torch.tensor([slot], device="openreg"), torch.ones(1, 4, device="openreg")
    side.wait_stream(torch.openreg.current_stream())
    with torch.openreg.stream(side):
        cache.index_copy_(0, rows, keys)
    cache[4:].exp()
with torch.openreg.sanitizer.collect() as report:
    program(1)
    program(1)
    print(len(torch.openreg.sanitizer.possible()), report.kinds)
print(report.kinds, torch.openreg.sanitizer.possible())
with torch.openreg.sanitizer.collect() as report:
    program(5)
print(report.kinds)
""",
        schedule="lazy",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["1 []", "[] []", "['race']"]


# ---- The whole process --------------------------------------------------------


def test_a_process_whose_findings_were_never_raised_does_not_end_well(python):
    result = python(RACE, env={"OPENREG_SANITIZE": "races"}, check=False)
    assert result.returncode == 66 and "sanitizer: race:" in result.stderr


def test_a_finding_that_was_raised_ends_the_process_as_any_error(sanitized):
    result = sanitized(RACE + "torch.openreg.synchronize()", "races")
    assert result.returncode == 1 and "torch_openreg.openreg.sanitizer.SanitizerError" in result.stderr
    caught = sanitized(RACE + "try:\n    torch.openreg.synchronize()\nexcept torch.openreg.SanitizerError:\n    pass\n", "races")
    assert caught.returncode == 0


def test_a_process_without_findings_ends_well(sanitized):
    result = sanitized(RACE.replace("with", "side.wait_stream(torch.openreg.current_stream())\nwith"), "races,lifetime,init,bounds,leaks")
    assert result.returncode == 0 and "sanitizer" not in result.stderr, result.stderr


def test_a_bad_value_of_the_variable_is_an_error_at_the_first_use(sanitized):
    result = sanitized("import torch, torch_openreg\ntorch.ones(1, device='openreg')", "race")
    assert result.returncode == 1 and "OPENREG_SANITIZE lists modes out of races, lifetime" in result.stderr


def test_a_leak_at_the_end_of_the_process(sanitized):
    leak = "import torch, torch_openreg\nkept = torch.ones(8, device='openreg')\ntorch.openreg.caching_allocator_alloc(4096, 0)\n"
    result = sanitized(leak, "leaks")
    assert result.returncode == 66 and "4096 bytes are still allocated" in result.stderr and "32 bytes" not in result.stderr


def test_a_training_script_leaks_nothing(sanitized):
    result = sanitized(
        """
import torch, torch_openreg
model = torch.nn.Linear(4, 2).to("openreg")
optimizer = torch.optim.AdamW(model.parameters())
for _ in range(3):
    loss = model(torch.ones(2, 4, device="openreg")).sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
""",
        "races,lifetime,init,bounds,leaks",
    )
    assert result.returncode == 0, result.stderr


# ---- Scopes -------------------------------------------------------------------


def test_a_scope_reports_what_it_leaves_behind():
    kept = []
    with sanitizer.collect("leaks") as report:
        with sanitizer.leak_scope():
            kept.append(torch.ones(256, device="openreg"))
            torch.ones(512, device="openreg")
    assert report.kinds == ["leak"] and "1024 bytes" in report.findings[0].allocation
    assert "test_a_scope_reports" in report.findings[0].allocation_stack


def test_a_scope_needs_its_mode():
    with pytest.raises(RuntimeError, match="needs the mode 'leaks'"):
        with sanitizer.leak_scope():
            pass


# ---- Programs that are right --------------------------------------------------


def test_backward_over_two_streams_is_ordered_by_autograd():
    side = torch.openreg.Stream()
    with sanitizer.collect("races,lifetime,init") as report:
        weight = torch.ones(16, 16, device="openreg", requires_grad=True)
        x = torch.ones(16, 16, device="openreg")
        side.wait_stream(torch.openreg.current_stream())
        with torch.openreg.stream(side):
            y = x @ weight
        torch.openreg.current_stream().wait_stream(side)
        (y.exp().sum() + (x @ weight).sum()).backward()
        weight.grad.record_stream(side)
        weight.grad.sum().item()
        del y
    gc.collect()
    assert not report, str(report)


def test_many_allocations_on_streams_that_are_joined():
    streams = [torch.openreg.Stream() for _ in range(3)]
    main = torch.openreg.current_stream()
    with sanitizer.collect("races,lifetime") as report:
        for round in range(20):
            a = torch.full((round + 1, 100), 1.0, device="openreg")
            parts = []
            for stream in streams:
                stream.wait_stream(main)
                with torch.openreg.stream(stream):
                    parts.append(a * 2)
                a.record_stream(stream)
            for stream, part in zip(streams, parts):
                main.wait_stream(stream)
                part.record_stream(main)
            total = sum(parts).sum()
            del a, parts, part
        assert total.item() == 3 * 2 * 20 * 100
    assert not report, str(report)


def test_pinned_batches_that_are_waited_for():
    with sanitizer.collect("races,lifetime,init") as report:
        host = torch.empty(64, pin_memory=True)
        for step in range(4):
            host.fill_(step)
            a = host.to("openreg", non_blocking=True)
            back = torch.empty(64, pin_memory=True)
            back.copy_(a, non_blocking=True)
            torch.openreg.current_stream().synchronize()
            assert back.sum().item() == 64 * step
    assert not report, str(report)


def test_addmm_with_beta_zero_does_not_read_its_first_argument():
    a = torch.ones(4, 4, device="openreg")
    with sanitizer.collect("init") as report:
        torch.baddbmm(torch.empty(2, 4, 4, device="openreg"), a.expand(2, 4, 4), a.expand(2, 4, 4), beta=0).sum()
        torch.addmm(torch.empty(4, 4, device="openreg"), a, a, beta=0).sum()
        torch.where(a > 0, a, torch.empty_like(a)).sum()
        torch.cat([torch.empty(2, 4, device="openreg"), a])[2:].sum()
    assert not report, str(report)


def test_results_that_an_operator_gets_as_arguments_are_not_read():
    a = torch.ones(4, 4, device="openreg")
    with sanitizer.collect("init") as report:
        a.cummax(0), a.cummin(0), torch.nn.functional.rrelu(a, training=True)
    assert not report, str(report)


def test_graphed_callables_warm_up_with_gradients_that_have_values():
    module, x = torch.nn.Linear(4, 2, device="openreg"), torch.ones(3, 4, device="openreg", requires_grad=True)
    with sanitizer.collect("init") as report:
        graphed = torch.openreg.make_graphed_callables(module, (x,))
        graphed(x).sum().backward()
    assert not report, str(report)

"""Devices: counting, choosing, context managers, properties, and what wrong devices get as an answer."""

import ast
import threading

import pytest
import torch
import torch_openreg  # noqa: F401

SEES_TWO = "this process sees 2 openreg devices, with indices 0 to 1"


def test_two_devices_are_seen_and_device_0_is_current():
    assert torch.openreg.device_count() == 2
    assert torch.openreg.is_available()
    assert torch.openreg.current_device() == 0
    assert torch.accelerator.current_accelerator() == torch.device("openreg")
    assert torch.accelerator.device_count() == 2
    assert torch.accelerator.current_device_index() == 0


TAKES_A_DEVICE = [
    torch.openreg.set_device,
    torch.openreg.device,
    torch.openreg.synchronize,
    torch.openreg.get_device_name,
    torch.openreg.get_device_properties,
    torch.openreg.get_device_capability,
    torch.openreg.current_stream,
    torch.openreg.default_stream,
    torch.openreg.Stream,
    torch.openreg.memory_allocated,
    torch.openreg.max_memory_allocated,
    torch.openreg.memory_reserved,
    torch.openreg.max_memory_reserved,
    torch.openreg.memory_stats,
    torch.openreg.memory_stats_as_nested_dict,
    torch.openreg.memory_summary,
    torch.openreg.mem_get_info,
    torch.openreg.reset_peak_memory_stats,
    torch.openreg.reset_accumulated_memory_stats,
    torch.openreg.get_rng_state,
    lambda device: torch.openreg.set_rng_state(torch.zeros(16, dtype=torch.uint8), device),
    lambda device: torch.openreg.can_device_access_peer(0, device),
]


@pytest.mark.parametrize("function", TAKES_A_DEVICE, ids=lambda function: function.__name__)
def test_every_function_names_the_devices_when_it_gets_a_wrong_one(function):
    torch.openreg.init()
    for wrong, error in [
        (2, RuntimeError),
        (127, RuntimeError),
        (-2, RuntimeError),
        ("openreg:2", RuntimeError),
        (torch.device("openreg", 9), RuntimeError),
        ("cpu", ValueError),
        (torch.device("meta"), ValueError),
        (1.0, TypeError),
        (True, TypeError),
        (torch.zeros(1), TypeError),
    ]:
        with pytest.raises(error, match=SEES_TWO):
            function(wrong)
    assert torch.openreg.current_device() == 0


@pytest.mark.parametrize("name", [1, "openreg:1", torch.device("openreg", 1)])
def test_a_device_can_be_named_in_three_ways(name):
    with torch.openreg.device(name):
        assert torch.openreg.current_device() == 1
        assert torch.empty(1, device="openreg").device.index == 1
    assert torch.openreg.current_device() == 0


@pytest.mark.parametrize("nothing", [None, -1])
def test_none_and_minus_one_change_no_device(nothing):
    with torch.openreg.device(1):
        with torch.openreg.device(nothing):
            assert torch.openreg.current_device() == 1
    torch.openreg.set_device(-1)
    assert torch.openreg.current_device() == 0


def test_set_device_holds_until_the_next_one():
    torch.openreg.set_device(1)
    try:
        assert torch.openreg.current_device() == 1
        assert torch.accelerator.current_device_index() == 1
        assert torch.zeros(1, device="openreg").get_device() == 1
    finally:
        torch.openreg.set_device("openreg:0")


def test_a_bare_device_name_has_no_index_to_set():
    with pytest.raises(ValueError, match="with an index is needed"):
        torch.openreg.set_device("openreg")


def test_the_previous_device_comes_back_after_an_exception():
    with pytest.raises(KeyError):
        with torch.openreg.device(1):
            raise KeyError
    assert torch.openreg.current_device() == 0
    with pytest.raises(RuntimeError):
        with torch.accelerator.device_index(1):
            torch.ones(2, device="openreg") @ torch.ones(3, device="openreg")
    assert torch.openreg.current_device() == 0


def test_one_device_context_can_be_nested_in_itself():
    context = torch.openreg.device(1)
    with context:
        with torch.openreg.device(0):
            with context:
                assert torch.openreg.current_device() == 1
            assert torch.openreg.current_device() == 0
        assert torch.openreg.current_device() == 1
    assert torch.openreg.current_device() == 0


def test_a_device_decorates_a_function():
    @torch.openreg.device("openreg:1")
    def where(factor):
        """Where it runs."""
        return torch.openreg.current_device() * factor

    assert where(3) == 3
    assert (where.__name__, where.__doc__) == ("where", "Where it runs.")
    assert torch.openreg.current_device() == 0


def test_a_decorated_function_restores_the_device_after_an_exception():
    @torch.openreg.device(1)
    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.openreg.current_device() == 0


def test_device_of_follows_a_tensor_and_ignores_cpu_tensors(device):
    tensor = torch.empty(1, device=device)
    for thing in (tensor, tensor.untyped_storage()):
        with torch.openreg.device_of(thing):
            assert torch.openreg.current_device() == device.index
    with torch.openreg.device_of(torch.empty(1)):
        assert torch.openreg.current_device() == 0


def test_tensors_on_a_device_that_does_not_exist_are_refused():
    for make in (
        lambda: torch.empty(1, device="openreg:7"),
        lambda: torch.ones(1).to("openreg:7"),
        lambda: torch.ones(1, device="openreg").to("openreg:7"),
        lambda: torch.Stream(device="openreg:7"),
        lambda: torch.accelerator.set_device_index(7),
        lambda: torch.accelerator.synchronize(7),
        lambda: torch.Generator("openreg:7"),
    ):
        with pytest.raises(RuntimeError, match="openreg:7 does not exist: 2 devices are visible"):
            make()
    assert torch.openreg.current_device() == 0


def test_torch_device_works_as_context_and_default():
    with torch.device("openreg:1"):
        assert torch.zeros(2).device == torch.device("openreg:1")
    torch.set_default_device("openreg")
    try:
        assert torch.zeros(2).device == torch.device("openreg:0")
    finally:
        torch.set_default_device(None)


def test_each_thread_has_its_own_current_device():
    torch.openreg.init()
    seen = []

    def work():
        seen.append(torch.openreg.current_device())
        torch.openreg.set_device(1)
        seen.append(torch.ones(1, device="openreg").device.index)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [0, 1]
    assert torch.openreg.current_device() == 0


def test_properties_name_and_capability_agree(device):
    properties = torch.openreg.get_device_properties(device)
    assert properties.name == torch.openreg.get_device_name(device) != ""
    assert (properties.major, properties.minor) == torch.openreg.get_device_capability(device)
    assert properties.total_memory == torch.openreg.mem_get_info(device)[1] > 0
    assert properties.compute_units == properties.multi_processor_count == properties.max_compute_units > 0
    assert properties.priority_greatest < properties.priority_least
    with pytest.raises(AttributeError):
        properties.name = "another"


def test_what_the_device_supports():
    assert torch.openreg.is_bf16_supported() and not torch.openreg.is_tf32_supported()
    assert torch.openreg.get_amp_supported_dtype() == [torch.float16, torch.bfloat16]
    assert torch.openreg.get_arch_list() == ["sim"]
    assert torch.openreg.can_device_access_peer(0, 1) and not torch.openreg.can_device_access_peer(1, 1)
    assert torch.float32 in torch.accelerator.get_device_capability("openreg:1")["supported_dtypes"]


def test_the_list_of_architectures_starts_the_driver_as_any_use_does(python):
    python(
        """
        import torch, torch_openreg
        torch.openreg.manual_seed(3)
        assert torch.openreg.get_arch_list() == ["sim"] and torch.openreg.is_initialized()
        first = torch.rand(4, device="openreg")
        torch.openreg.manual_seed(3)
        assert torch.equal(first, torch.rand(4, device="openreg"))
        """
    )


def test_synchronize_before_the_first_use_starts_nothing(python):
    python(
        """
        import torch, torch_openreg
        torch.openreg.synchronize()
        torch.openreg.empty_cache()
        assert torch.openreg.memory_allocated() == 0
        assert not torch.openreg.is_initialized()
        torch.openreg.init()
        assert torch.openreg.is_initialized() and torch.openreg._initialized
        """
    )


def test_asking_which_accelerator_there_is_starts_no_driver(python):
    python(
        """
        import torch, torch_openreg
        assert torch.accelerator.is_available() and torch.accelerator.device_count() == 2
        assert torch.accelerator.current_accelerator().type == "openreg"
        assert not torch.openreg.is_initialized() and not torch_openreg._C.is_initialized()
        """
    )


@pytest.mark.parametrize(
    ("visible", "count"), [("0,1", 2), ("1,0", 2), ("1", 1), (" 1 , 0 ", 2), ("", 0), ("-1", 0), ("0,-1,1", 1), ("0,x,1", 1), ("0,9,1", 1)]
)
def test_visible_devices_are_counted_as_cuda_counts_its_own(python, visible, count):
    python(
        f"""
        import torch, torch_openreg
        assert torch.openreg.device_count() == {count}, torch.openreg.device_count()
        assert torch.openreg.is_available() is {count > 0}
        if {count}:
            torch.openreg.init()
            assert torch.openreg.device_count() == {count}
        """,
        env={"OPENREG_VISIBLE_DEVICES": visible},
    )


def test_visible_devices_are_renumbered_in_their_order(python):
    code = """
        import torch, torch_openreg
        print([torch.openreg.get_device_name(i) for i in range(torch.openreg.device_count())])
        x = torch.ones(2, device="openreg:1")
        assert x.device.index == 1 and x.sum().item() == 2
    """
    names = ast.literal_eval(python(code, env={"OPENREG_VISIBLE_DEVICES": "0,1"}).stdout)
    assert ast.literal_eval(python(code, env={"OPENREG_VISIBLE_DEVICES": "1,0"}).stdout) == names[::-1]


def test_naming_a_visible_device_twice_is_an_error_at_the_first_use(python):
    result = python(
        "import torch, torch_openreg; assert not torch.openreg.is_available(); torch.openreg.init()",
        env={"OPENREG_VISIBLE_DEVICES": "0,1,0"},
        check=False,
    )
    assert "ValueError: OPENREG_VISIBLE_DEVICES='0,1,0' names device 0 more than once." in result.stderr


def test_without_a_visible_device_the_first_use_says_why(python):
    python(
        """
        import torch, torch_openreg
        torch.manual_seed(1)
        for use in (torch.openreg.init, torch.openreg.current_device, lambda: torch.empty(1, device="openreg")):
            try:
                use()
            except RuntimeError as error:
                assert "No openreg device is visible: OPENREG_VISIBLE_DEVICES is ''." in str(error), error
            else:
                assert False
        """,
        env={"OPENREG_VISIBLE_DEVICES": ""},
    )


def test_eight_devices_work_at_once(python):
    python(
        """
        import torch, torch_openreg
        assert torch.openreg.device_count() == 8
        tensors = [torch.full((4,), i, device=f"openreg:{i}") for i in range(8)]
        assert [int((t + 1).sum()) for t in tensors] == [4 * (i + 1) for i in range(8)]
        moved = tensors[0]
        for i in (3, 7, 1):
            moved = moved.to(f"openreg:{i}") + 1
        assert moved.device.index == 1 and moved.tolist() == [3, 3, 3, 3]
        """,
        env={"OPENREG_DEVICES": "8"},
    )

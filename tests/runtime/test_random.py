"""Random numbers at the level of seeds, states and generators; what the numbers look like is tests/aten's."""

import pytest
import torch
import torch_openreg  # noqa: F401


@pytest.fixture(autouse=True)
def same_state_after_the_test():
    states = torch.openreg.get_rng_state_all()
    with torch.random.fork_rng(devices=[], device_type="openreg"):
        yield
    torch.openreg.set_rng_state_all(states)


def test_torch_manual_seed_seeds_every_device():
    torch.manual_seed(7)
    first = [torch.rand(4, device=f"openreg:{i}").tolist() for i in range(2)]
    torch.manual_seed(7)
    assert [torch.rand(4, device=f"openreg:{i}").tolist() for i in range(2)] == first
    assert first[0] == first[1]
    torch.manual_seed(8)
    assert torch.rand(4, device="openreg").tolist() != first[0]


def test_manual_seed_seeds_the_current_device_only():
    torch.openreg.manual_seed_all(1)
    with torch.openreg.device(1):
        torch.openreg.manual_seed(2)
        assert torch.openreg.initial_seed() == 2
    assert torch.openreg.initial_seed() == 1


def test_seeds_given_before_the_first_use_hold(python):
    code = """
        import torch, torch_openreg
        {before}
        assert not torch.openreg.is_initialized()
        print(torch.rand(3, device="openreg:0").tolist(), torch.rand(3, device="openreg:1").tolist())
    """
    seeded = python(code.format(before="torch.manual_seed(5)")).stdout
    assert seeded == python(code.format(before="torch.openreg.manual_seed_all(5)")).stdout
    assert seeded == python(code.format(before="torch.openreg.manual_seed(9); torch.manual_seed(5)")).stdout
    assert seeded != python(code.format(before="torch.manual_seed(6)")).stdout


def test_a_wrong_seed_before_the_first_use_is_an_error_of_its_call_alone(python):
    python(
        """
        import torch, torch_openreg
        torch.manual_seed(5)
        for seed in (2**64, -(2**63) - 1):
            for set_seed in (torch.manual_seed, torch.openreg.manual_seed, torch.openreg.manual_seed_all):
                try:
                    set_seed(seed)
                except ValueError as error:
                    assert str(seed) in str(error), error
                else:
                    raise AssertionError(seed)
        assert not torch.openreg.is_initialized()
        assert torch.openreg.initial_seed() == 5
        for seed in (2**64 - 1, -(2**63)):
            torch.manual_seed(seed)
            assert torch.openreg.initial_seed() == seed % 2**64 and torch.initial_seed() % 2**64 == seed % 2**64
        """
    )


def test_a_state_set_before_the_first_use_holds(python):
    python(
        """
        import torch, torch_openreg
        state = torch.zeros(16, dtype=torch.uint8)
        state[0], state[8] = 3, 4
        torch.openreg.set_rng_state(state, 1)
        state[0] = 99
        assert not torch.openreg.is_initialized()
        assert torch.openreg.get_rng_state(1).tolist() == [3] + [0] * 7 + [4] + [0] * 7
        """
    )


@pytest.mark.parametrize("name", [lambda i: i, lambda i: f"openreg:{i}", lambda i: torch.device("openreg", i)])
def test_a_state_can_be_saved_and_set_on_every_device(device, name):
    torch.openreg.manual_seed_all(11)
    torch.rand(5, device=device)
    state = torch.openreg.get_rng_state(name(device.index))
    assert state.dtype == torch.uint8 and state.shape == (16,) and state.device.type == "cpu"
    first = torch.randn(6, device=device)
    torch.openreg.set_rng_state(state, name(device.index))
    assert torch.equal(torch.randn(6, device=device), first)


@pytest.mark.parametrize("arguments", [(), ("openreg",), (None,)], ids=["none", "openreg", "None"])
def test_without_an_index_the_state_is_the_current_devices(arguments):
    torch.openreg.set_rng_state(torch.openreg.get_rng_state(0), 0)
    with torch.openreg.device(1):
        torch.openreg.manual_seed(1234)
        state = torch.openreg.get_rng_state(*arguments)
        torch.openreg.manual_seed(1)
        torch.openreg.set_rng_state(state, *arguments)
        assert torch.openreg.initial_seed() == 1234
    assert torch.equal(torch.openreg.get_rng_state(1), state)
    assert not torch.equal(torch.openreg.get_rng_state(0), state)


def test_the_states_of_all_devices_are_a_list():
    torch.openreg.manual_seed_all(3)
    states = torch.openreg.get_rng_state_all()
    assert len(states) == 2
    numbers = [torch.rand(2, device=f"openreg:{i}").tolist() for i in range(2)]
    torch.openreg.set_rng_state_all(states)
    assert [torch.rand(2, device=f"openreg:{i}").tolist() for i in range(2)] == numbers


def test_the_offset_moves_with_use_and_can_be_set(device):
    torch.openreg.manual_seed_all(3)
    assert torch.openreg._get_rng_state_offset(device) == 0
    first = torch.rand(8, device=device)
    moved = torch.openreg._get_rng_state_offset(device)
    assert moved > 0 and moved % 4 == 0
    torch.openreg._set_rng_state_offset(0, device)
    assert torch.equal(torch.rand(8, device=device), first)


def test_seed_draws_a_new_seed():
    torch.openreg.manual_seed(5)
    torch.openreg.seed()
    assert torch.openreg.initial_seed() != 5
    torch.openreg.seed_all()
    assert torch.openreg.default_generators[0].initial_seed() == torch.openreg.default_generators[1].initial_seed()


def test_default_generators_are_a_sequence_of_the_devices_generators(device):
    generators = torch.openreg.default_generators
    assert len(generators) == 2 and [generator.device.index for generator in generators] == [0, 1]
    assert generators[-1].device == torch.device("openreg:1")
    assert torch.openreg._get_generator(device).device == device
    generators[device.index].manual_seed(77)
    assert torch.openreg.get_rng_state(device)[0] == 77
    with pytest.raises(IndexError, match="sees 2 openreg devices"):
        generators[2]


def test_a_generator_of_its_own_does_not_touch_the_default_one(device):
    before = torch.openreg.get_rng_state(device)
    generator = torch.Generator(device).manual_seed(42)
    first = torch.rand(5, device=device, generator=generator)
    generator.manual_seed(42)
    assert torch.equal(torch.rand(5, device=device, generator=generator), first)
    assert torch.equal(torch.openreg.get_rng_state(device), before)


def test_a_generator_of_another_device_is_refused(device):
    with pytest.raises(RuntimeError):
        torch.rand(5, device=device, generator=torch.Generator("cpu"))


def test_fork_rng_restores_the_devices(device):
    torch.manual_seed(1)
    before = torch.openreg.get_rng_state_all()
    with torch.random.fork_rng(devices=[0, 1], device_type="openreg"):
        torch.rand(4, device=device)
        torch.openreg.manual_seed_all(99)
    assert all(map(torch.equal, torch.openreg.get_rng_state_all(), before))


def test_the_cpus_generator_is_not_used(device):
    before = torch.get_rng_state()
    torch.rand(100, device=device)
    torch.randn(100, device=device)
    torch.randperm(100, device=device)
    torch.nn.functional.dropout(torch.ones(100, device=device))
    torch.multinomial(torch.ones(10, device=device), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_checkpoint_repeats_dropout_on_the_device(device):
    from torch.utils.checkpoint import checkpoint

    weight = torch.ones(64, device=device, requires_grad=True)
    seen = []

    def block(x):
        out = torch.nn.functional.dropout(x, 0.5)
        seen.append(out.detach())
        return out * out

    for use_reentrant in (False, True):
        seen.clear()
        checkpoint(block, weight, use_reentrant=use_reentrant).sum().backward()
        assert len(seen) == 2 and torch.equal(seen[0], seen[1])


def test_generators_may_share_a_state(device):
    first, second = torch.Generator(device).manual_seed(5), torch.Generator(device)
    second.graphsafe_set_state(first)
    draws = [torch.rand(4, device=device, generator=generator) for generator in (first, second, first)]
    alone = torch.Generator(device).manual_seed(5)
    assert all(torch.equal(draw, torch.rand(4, device=device, generator=alone)) for draw in draws)
    kept = first.graphsafe_get_state()
    copied = first.clone_state()
    torch.rand(4, device=device, generator=second)
    assert kept.get_offset() == first.get_offset() == second.get_offset() != copied.get_offset()
    with pytest.raises(RuntimeError):
        first.graphsafe_set_state(torch.Generator("cpu"))


def test_a_checkpoint_without_the_random_state_draws_new_numbers(device):
    from torch.utils.checkpoint import checkpoint

    seen = []

    def block(x):
        out = torch.nn.functional.dropout(x, 0.5)
        seen.append(out.detach())
        return out * out

    weight = torch.ones(256, device=device, requires_grad=True)
    checkpoint(block, weight, use_reentrant=True, preserve_rng_state=False).sum().backward()
    assert len(seen) == 2 and not torch.equal(seen[0], seen[1])


def test_fork_rng_keeps_the_seeds_before_the_first_use_of_a_device(python):
    python(
        """
        import torch, torch_openreg
        with torch.random.fork_rng(device_type="openreg"):
            torch.manual_seed(1)
            a = torch.rand(3, device="openreg")
        b = torch.rand(3, device="openreg")
        assert not torch.equal(a, b)
        with torch.random.fork_rng(device_type="openreg"):
            torch.manual_seed(1)
            assert torch.equal(torch.rand(3, device="openreg"), a)
        """
    )

"""Random numbers (L4): seeds, generators and their states, and the shape of what is drawn."""

import torch

from . import check

COUNT = 4000


def _index(probe) -> int:
    return probe.device.index or 0


def _draw(probe, generator=None):
    return torch.rand(COUNT, device=probe.device, generator=generator).cpu()


def _state(probe):
    probe.requires("get_rng_state")
    return torch.get_rng_state() if probe.type == "cpu" else probe.module.get_rng_state(_index(probe))


def _set_state(probe, state) -> None:
    probe.requires("set_rng_state")
    torch.set_rng_state(state) if probe.type == "cpu" else probe.module.set_rng_state(state, _index(probe))


def _generator(probe, seed: int):
    try:
        return torch.Generator(probe.device).manual_seed(seed)
    except RuntimeError as error:
        raise NotImplementedError(f"torch.Generator({str(probe.device)!r}): {' '.join(str(error).split())[:200]}") from error


@check
def a_seed_repeats_the_numbers(probe):
    "torch.manual_seed makes the device draw the same numbers again, and another seed other ones."
    found = {}
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        numbers = _draw(probe)
        probe.expect(seed not in found or torch.equal(found[seed], numbers), "torch.manual_seed(1) twice gives different numbers")
        found[seed] = numbers
    probe.expect(not torch.equal(found[1], found[2]), "torch.manual_seed(1) and torch.manual_seed(2) give the same numbers")


@check
def numbers_do_not_repeat_by_themselves(probe):
    "One draw after the other moves the generator on: numbers differ between calls and within one."
    torch.manual_seed(1)
    first, second = _draw(probe), _draw(probe)
    probe.expect(not torch.equal(first, second), "two draws in a row gave the same numbers")
    probe.expect(not bool(torch.isin(first[:100], second[:100]).any()), "a draw began inside of the draw before it")
    probe.expect(first.unique().numel() > COUNT * 0.99, f"{COUNT} numbers have {first.unique().numel()} values")


@check
def a_generator_is_used(probe):
    "A call with generator= draws from it and repeats with its seed, and leaves the default generator alone."
    torch.manual_seed(7)
    wanted = _draw(probe)
    torch.manual_seed(7)
    generator = _generator(probe, 5)
    first, second = _draw(probe, generator), _draw(probe, generator.manual_seed(5))
    probe.expect(torch.equal(first, second), "generator.manual_seed(5) twice gives different numbers: generator= is ignored, or its seed is")
    probe.expect(torch.equal(_draw(probe), wanted), "a draw with generator= moved the default generator")
    probe.expect(not torch.equal(_draw(probe, generator.manual_seed(6)), first), "generator= is ignored, or its seed is")
    torch.manual_seed(9)
    probe.expect(torch.equal(_draw(probe, generator.manual_seed(5)), first), "numbers of a generator depend on torch.manual_seed")


@check
def generators_keep_their_state(probe):
    "A generator says its seed, its device and its state; the state set again, in another generator too, repeats the numbers."
    generator = _generator(probe, 11)
    probe.expect(generator.initial_seed() == 11, f"initial_seed is {generator.initial_seed()} after manual_seed(11)")
    probe.expect(generator.device.type == probe.type, f"the generator is on {generator.device}, expected {probe.device}")
    _draw(probe, generator)
    state, other = generator.get_state(), _generator(probe, 12)
    first = _draw(probe, generator)
    other.set_state(state)
    probe.expect(torch.equal(_draw(probe, other), first), "a generator that got another's state draws other numbers")
    generator.set_state(state)
    probe.expect(torch.equal(_draw(probe, generator), first), "a generator whose state was set back draws other numbers")


@check
def the_state_can_be_kept(probe):
    "get_rng_state and set_rng_state of the device's module bring the default generator back to where it was."
    torch.manual_seed(3)
    _draw(probe)
    state = _state(probe)
    first = _draw(probe)
    probe.expect(not torch.equal(_state(probe), state), "the state is the same after numbers were drawn")
    _set_state(probe, state)
    probe.expect(torch.equal(_draw(probe), first), "set_rng_state did not bring the numbers back")


@check
def forked_numbers_leave_no_trace(probe):
    "After torch.random.fork_rng the device's generator is where it was before."
    probe.requires("get_rng_state")
    torch.manual_seed(4)
    wanted = _draw(probe)
    torch.manual_seed(4)
    devices, kind = ([], "cuda") if probe.type == "cpu" else ([_index(probe)], probe.type)
    with torch.random.fork_rng(devices=devices, device_type=kind):
        torch.manual_seed(99)
        _draw(probe)
    probe.expect(torch.equal(_draw(probe), wanted), "numbers drawn inside of fork_rng changed those after it")


@check
def the_cpus_generator_is_another_one(probe):
    "What the device draws does not depend on what the CPU drew, nor the other way round."
    probe.needs(probe.type != "cpu", "the device is the CPU")
    torch.manual_seed(5)
    wanted, wanted_cpu = _draw(probe), torch.rand(10)
    torch.manual_seed(5)
    cpu = torch.rand(10)
    probe.expect(torch.equal(cpu, wanted_cpu), "the device's numbers move the CPU's generator")
    probe.expect(torch.equal(_draw(probe), wanted), "the CPU's numbers move the device's generator")


@check
def devices_have_their_own_generators(probe):
    "What one device draws does not depend on what another one drew; torch.manual_seed seeds them all."
    other = probe.needs_two_devices()
    torch.manual_seed(6)
    wanted, first = _draw(probe), torch.rand(10, device=other).cpu()
    torch.manual_seed(6)
    again = torch.rand(10, device=other).cpu()
    probe.expect(torch.equal(again, first), f"the numbers of {probe.device} move the generator of {other}, or torch.manual_seed does not seed it")
    probe.expect(torch.equal(_draw(probe), wanted), f"the numbers of {other} move the generator of {probe.device}")


@check
def a_generator_of_another_device_is_refused(probe):
    "A call with a generator of the CPU raises RuntimeError or ValueError."
    probe.needs(probe.type != "cpu", "the device is the CPU")
    try:
        torch.rand(3, device=probe.device, generator=torch.Generator())
        probe.synchronize()
    except (RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, NotImplementedError):
            raise
        return
    probe.expect(False, f"torch.rand on {probe.device} took a generator of the CPU without a word")


@check
def dropout_keeps_its_share(probe):
    "Dropout of 0.3 keeps about 70% of its input, scaled by 1 / 0.7, and changes nothing in eval."
    torch.manual_seed(8)
    x = torch.ones(COUNT, device=probe.device)
    y = torch.nn.functional.dropout(x, 0.3)
    kept = (y != 0).float().mean().item()
    probe.expect(abs(kept - 0.7) < 0.04, f"dropout of 0.3 kept {kept:.3f} of its input, expected about 0.7")
    largest = y.max().item()
    probe.expect(abs(largest - 1 / 0.7) < 0.01, f"what dropout of 0.3 keeps is scaled by {largest:.4f}, expected {1 / 0.7:.4f}")
    idle = torch.nn.functional.dropout(x, 0.3, training=False)
    probe.expect(torch.equal(idle.cpu(), x.cpu()), "dropout with training=False changes its input")


@check
def distributions_have_their_moments(probe):
    "rand, randn, randint, bernoulli_, exponential_ and randperm have the range, mean and deviation that they promise."
    torch.manual_seed(9)

    def empty():
        return torch.empty(COUNT, device=probe.device)

    drawn = {  # name: numbers, least, most, mean, deviation
        "rand": (_draw(probe), 0, 1, 0.5, 0.289),
        "randn": (torch.randn(COUNT, device=probe.device), -7, 7, 0, 1),
        "randint(2, 6)": (torch.randint(2, 6, (COUNT,), device=probe.device), 2, 5, 3.5, 1.118),
        "uniform_(-1, 3)": (empty().uniform_(-1, 3), -1, 3, 1, 1.155),
        "bernoulli_(0.25)": (empty().bernoulli_(0.25), 0, 1, 0.25, 0.433),
        "exponential_(2)": (empty().exponential_(2), 0, 20, 0.5, 0.5),
        "normal_(4, 2)": (empty().normal_(4, 2), -10, 18, 4, 2),
    }
    for name, (numbers, least, most, mean, deviation) in drawn.items():
        values = numbers.cpu().double()
        probe.expect(least <= values.min() and values.max() <= most,
                     f"{name} is between {values.min():g} and {values.max():g}, expected {least} to {most}")
        found = values.mean().item(), values.std().item()
        near = abs(found[0] - mean) < 6 * deviation / COUNT**0.5 and abs(found[1] / deviation - 1) < 0.15
        probe.expect(near, f"{name} has the mean {found[0]:.3f} and the deviation {found[1]:.3f}, expected {mean} and {deviation}")
    order = torch.randperm(100, device=probe.device).cpu()
    probe.expect(sorted(order.tolist()) == list(range(100)), "randperm(100) is not an order of 0 to 99")
    probe.expect(order.tolist() != list(range(100)), "randperm(100) leaves everything in its place")

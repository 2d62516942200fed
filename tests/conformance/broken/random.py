"""Wrong random numbers: seeds and generators that are ignored, states that do not come back, distributions off by something."""

import torch

from . import variant
from .replacement import replaced


def uniform(draw):
    """A kernel of uniform_ with the numbers of draw(x, low, high, generator), a tensor of the CPU."""

    def kernel(x, low=0.0, high=1.0, generator=None):
        return x.copy_(draw(x, low, high, generator))

    return replaced("uniform_", kernel)


def on_the_cpu(x, low, high, generator=None):
    return torch.empty(x.shape, dtype=x.dtype).uniform_(low, high, generator=generator)


@variant({"check.random.a_seed_repeats_the_numbers": "torch.manual_seed(1) twice gives different numbers"})
def seeds_are_ignored():
    "manual_seed_all does nothing."
    torch.openreg.manual_seed_all = lambda seed: None


@variant({
    "check.random.numbers_do_not_repeat_by_themselves": "two draws in a row gave the same numbers",
    "check.random.the_state_can_be_kept": "the state is the same after numbers were drawn",
})  # fmt: skip
def a_generator_that_stands_still():
    "The kernel of uniform_ begins at the seed every time."
    return uniform(lambda x, low, high, generator: on_the_cpu(x, low, high, torch.Generator().manual_seed(torch.openreg.initial_seed())))


@variant({
    "check.random.a_generator_is_used": "generator.manual_seed(5) twice gives different numbers: generator= is ignored",
})  # fmt: skip
def generators_are_ignored():
    "The kernel of uniform_ draws from the device's normal numbers, and never from generator=."
    return replaced("uniform_", lambda x, low=0.0, high=1.0, generator=None: x.normal_().sigmoid_().mul_(high - low).add_(low))


@variant({"check.random.generators_keep_their_state": "a generator that got another's state draws other numbers"})
def states_of_generators_do_not_come_back():
    "set_state of a generator does nothing."

    class Forgetful(torch.Generator):
        def set_state(self, state):
            return self

    torch.Generator = Forgetful


@variant({
    "check.random.the_state_can_be_kept": "set_rng_state did not bring the numbers back",
    "check.random.forked_numbers_leave_no_trace": "numbers drawn inside of fork_rng changed those after it",
    "check.autograd.a_checkpoint_repeats_the_random_numbers": "the recomputed dropout has another mask",
})  # fmt: skip
def states_do_not_come_back():
    "set_rng_state does nothing."
    torch.openreg.set_rng_state = lambda state, device="openreg": None


@variant({
    "check.random.the_cpus_generator_is_another_one": "the device's numbers move the CPU's generator",
    "check.random.a_generator_of_another_device_is_refused": "took a generator of the CPU without a word",
})  # fmt: skip
def numbers_of_the_cpu():
    "The kernel of uniform_ draws from the generators of the CPU."
    return uniform(lambda x, low, high, generator: on_the_cpu(x, low, high, generator if generator and generator.device.type == "cpu" else None))


@variant({"check.random.devices_have_their_own_generators": "the numbers of openreg:0 move the generator of openreg:1"})
def one_generator_for_all_devices():
    "The kernel of uniform_ draws on device 0."
    return uniform(lambda x, low, high, generator: torch.empty(x.shape, device="openreg:0").normal_().sigmoid().cpu())


@variant({"check.random.dropout_keeps_its_share": "what dropout of 0.3 keeps is scaled by 1.0000, expected 1.4286"})
def dropout_without_a_scale():
    "The kernel of dropout does not scale what it keeps."

    def native_dropout(x, p, train):
        mask = torch.rand(x.shape, device=x.device) >= p
        return x * mask, mask

    return replaced("native_dropout", native_dropout)


@variant({"check.random.distributions_have_their_moments": "randint(2, 6) is between 2 and 6, expected 2 to 5"})
def the_upper_end_is_drawn():
    "randint draws its upper end too."
    return replaced("random_.from", lambda x, low, high, generator=None: x.copy_(torch.randint(low, high + 1, x.shape)))

"""Wrong mixed precision: operators outside of autocast's lists, lists that are followed wrongly, regions, a scaler that sees nothing."""

import torch

from . import variant
from .replacement import replaced

AUTOCAST = "AutocastPrivateUse1"


def outside(call):
    """The call as a kernel of autocast that leaves autocast out."""

    def kernel(*args, **kwargs):
        with torch.autocast("openreg", enabled=False):
            return call(*args, **kwargs)

    return kernel


@variant({"check.amp.matrix_products_take_the_lower_dtype": "nn.functional.linear gives float32 under autocast, expected"})
def linear_is_in_no_list():
    "Autocast does not know linear."
    return replaced("linear", outside(torch.nn.functional.linear), AUTOCAST)


@variant({"check.amp.sensitive_operators_take_float32": "softmax of"})
def softmax_is_in_no_list():
    "Autocast does not know softmax."
    return replaced("softmax.int", outside(torch.softmax), AUTOCAST)


@variant({"check.amp.mixed_operands_take_the_wider_dtype": "under autocast, expected float32"})
def cat_takes_the_narrow_dtype():
    "Under autocast cat converts to the lower dtype."
    return replaced("cat", outside(lambda tensors, dim=0: torch.cat([tensor.half() for tensor in tensors], dim)), AUTOCAST)


@variant({"check.amp.autocast_regions_nest": "the outer region is gone after an exception in the inner one"})
def regions_do_not_end():
    "The end of an autocast region does not bring back what was before it."
    torch.autocast.__exit__ = lambda self, *error: False


@variant({"check.amp.a_weight_is_cast_once_in_a_region": "took 3 casts with the cache and 3 without"})
def no_cache_of_casts():
    "Autocast casts a weight at every use."
    enable = torch.set_autocast_cache_enabled
    torch.set_autocast_cache_enabled = lambda enabled: enable(False)


@variant({"check.amp.gradients_under_autocast_have_the_weights_dtype": "the gradient is 0, expected 2"})
def low_products_vanish():
    "A matrix product in the lower dtypes leaves its result at zero."

    def mm(a, b):
        result = torch.zeros(a.shape[0], b.shape[1], dtype=a.dtype, device=a.device)
        return result if a.dtype != torch.float32 else torch.addmm(result, a, b)

    return replaced("mm", mm)


@variant({"check.amp.custom_functions_choose_their_precision": "the forward saw (torch.float32, True"})
def custom_functions_stay_in_autocast():
    "custom_fwd and custom_bwd do nothing."
    torch.amp.custom_fwd = torch.amp.custom_bwd = lambda **options: lambda function: function


@variant({
    "check.amp.a_scaler_skips_steps_with_infinities": "a step with a gradient of inf changed the weight to",
    "check.amp.a_scaler_unscales_and_grows": "weight and scale after two steps of 0.5 are [(-3.0, 8",
})  # fmt: skip
def gradients_are_not_unscaled():
    "The kernel that unscales gradients and looks for infinities does nothing."
    return replaced("_amp_foreach_non_finite_check_and_unscale_", lambda gradients, found, scale: None)


@variant({
    "check.amp.a_scaler_skips_steps_with_infinities": "the scale after a gradient of inf is 8, expected 4",
    "check.amp.a_scaler_is_saved_and_loaded": "a loaded scaler has the scale 8 one step before it grows, expected 16",
})  # fmt: skip
def the_scale_never_changes():
    "The kernel that updates the scale does nothing."
    return replaced("_amp_update_scale_", lambda scale, *rest: scale)

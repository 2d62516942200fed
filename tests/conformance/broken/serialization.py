"""Wrong files: tensors that come back elsewhere, or as something else, or with other values."""

import torch

from . import variant


@variant({
    "check.serialization.a_tensor_comes_back_to_its_device": "a tensor that was loaded without map_location is on cpu, expected openreg:0",
    "check.serialization.map_location_is_followed": "what map_location='openreg:0' loads is on cpu, expected openreg:0",
    "check.serialization.parameters_stay_parameters": "weight of a state_dict is on cpu, expected openreg:0",
    "check.serialization.files_load_with_and_without_weights_only": "the weight of a loaded state_dict is on cpu, expected openreg:0",
    "check.serialization.mapped_files_load": "a tensor of a mapped file is on cpu, expected openreg:0",
    "check.serialization.a_device_that_is_not_there_is_named": "map_location='openreg:7' raised nothing and loaded to cpu",
})  # fmt: skip
def files_come_back_on_the_cpu():
    "The device's storages are left where they were read, on the CPU."
    torch.serialization.register_package(5, lambda storage: None, lambda storage, place: storage if place.startswith("openreg") else None)


@variant({"check.serialization.every_dtype_survives": "a tensor of float32 comes back with other values"})
def storages_come_to_the_cpu_empty():
    "The copy of a storage to the CPU moves nothing."
    torch.UntypedStorage.cpu = lambda self: torch.UntypedStorage(self.nbytes()).fill_(0)


@variant({"check.serialization.views_of_one_memory_stay_views": "strides and offset of part are ((1,), 0), expected ((1,), 4)"})
def every_tensor_gets_its_own_memory():
    "Each tensor of a file is loaded into memory of its own."
    rebuild = torch._utils._rebuild_tensor
    torch._utils._rebuild_tensor = lambda *args: rebuild(*args).clone()


@variant({"check.serialization.parameters_stay_parameters": "a Parameter comes back as Tensor"})
def parameters_are_tensors():
    "A Parameter is loaded as a tensor."

    def _rebuild_parameter(data, requires_grad, hooks):
        return data.requires_grad_(requires_grad)

    _rebuild_parameter.__module__, _rebuild_parameter.__qualname__ = "torch._utils", "_rebuild_parameter"  # found by pickle under this name
    torch._utils._rebuild_parameter = _rebuild_parameter


@variant({"check.serialization.subclasses_stay_subclasses": "a subclass with a label comes back as Tensor ''"})
def subclasses_are_tensors():
    "A subclass is loaded as a tensor."

    def _rebuild_from_type_v2(rebuild, kind, args, state):
        return rebuild(*args)

    _rebuild_from_type_v2.__module__, _rebuild_from_type_v2.__qualname__ = "torch._tensor", "_rebuild_from_type_v2"  # found by pickle under this name
    torch._tensor._rebuild_from_type_v2 = _rebuild_from_type_v2


@variant({"check.serialization.training_goes_on_from_a_file": "the optimizer's state after load_state_dict is on cpu, expected openreg:0"})
def optimizer_states_stay_on_the_cpu():
    "An optimizer that loads a state leaves it where it is."
    torch.optim.Optimizer._process_value_according_to_param_policy = staticmethod(lambda parameter, value, *rest: value)


@variant({"check.serialization.copies_are_separate": "the tensor of copy.deepcopy shares memory with its original"})
def a_deep_copy_is_shallow():
    "copy.deepcopy of a tensor is the tensor."
    torch.Tensor.__deepcopy__ = lambda self, memo: self.detach()

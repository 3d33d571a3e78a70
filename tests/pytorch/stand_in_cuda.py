"""A stand-in for GPUs on a machine without one: its tensors say that they are on cuda:N, and compute on the CPU.

It is as strict as PyTorch: it refuses a device that is not there, and operations between tensors of several devices. PyTorch's
own functions run down to the calls of its C code.
"""
import contextlib

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from twba_torch import convolution, network

# the project's own operations run in Python: so each operation within is looked at, too
OWN = {operation._opoverload: operation._init_fn for operation in (
    convolution._forward, convolution._exact_forward, convolution._backward, network.stored)}
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
CPU = torch.device("cpu")


class Cuda(TorchDispatchMode):
    """This many GPUs, while it is entered. A tensor's storage records which of them it is on."""

    def __init__(self, gpus):
        super().__init__()
        self.gpus, self.current, self.devices = gpus, None, {}

    def set_device(self, number):
        self.current = self.ordinal(number)

    def ordinal(self, number):
        if not 0 <= number < self.gpus:
            raise torch.AcceleratorError("CUDA error: invalid device ordinal\nCUDA kernel errors might be reported later")
        return number

    def device(self, tensor):
        return self.devices.get(StorageWeakRef(tensor.untyped_storage()), CPU)

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        named = dict(named or {})
        inputs = _tensors((arguments, named))
        found = {self.device(tensor) for tensor in inputs if tensor.dim() or self.device(tensor) != CPU}
        if len(found) > 1 and function not in COPIES:
            raise RuntimeError(f"Expected all tensors to be on the same device, but found {found} ({function})")
        if function in OWN and found != {CPU}:
            with self:
                return OWN[function](*arguments, **named)
        device = next(iter(found), CPU)
        if named.get("device", CPU) not in (None, CPU):  # the CPU's may stand there for the tensor's own
            number = named.pop("device").index
            device = torch.device("cuda", self.ordinal(self.current or 0 if number is None else number))
        results = function(*arguments, **named)
        before = {StorageWeakRef(tensor.untyped_storage()) for tensor in inputs}
        for tensor in _tensors(results):
            storage = StorageWeakRef(tensor.untyped_storage())
            if device.type == "cuda" and storage not in before:
                self.devices[storage] = device
        return results


def _to_cpu(tensor):
    with _disable_current_modes():
        return tensor.detach().clone()


def _tensors(values):
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def gpus(number, monkeypatch):
    """This many stand-ins. The arguments of torch.compile are checked; the function stays unchanged. Yields the Cuda."""
    def compiled(function, *, options=None, dynamic=None, **named):
        torch._TorchCompileInductorWrapper("default", options, dynamic)  # PyTorch's own check of the options
        return function

    cuda = Cuda(number)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", compiled)
        patch.setattr(torch.Tensor, "device", property(cuda.device), raising=False)
        patch.setattr(torch.Tensor, "cpu", _to_cpu, raising=False)
        patch.setattr(torch.cuda, "is_available", lambda: number > 0)
        patch.setattr(torch.cuda, "device_count", lambda: number)
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "get_device_name", lambda device: f"stand-in {torch.cuda._utils._get_device_index(device)}")
        patch.setattr(torch._C, "_cuda_setDevice", cuda.set_device, raising=False)
        patch.setattr(torch._C, "_cuda_getDevice", lambda: cuda.current or 0, raising=False)
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes a CPU's, and only then asks for the device
        try:
            with cuda:
                yield cuda
        finally:
            torch._C._set_only_lift_cpu_tensors(False)

"""A training in which every process holds a share of the network, for those that do not fit (FSDP2, Zhao et al. 2023).

Weights, their gradients and the optimizer's moments are shared out; a layer is whole only while it computes.
"""

import copy

import torch
from torch import nn

from whit.errors import ModelError
from whit.ranks import Ranks, group
from whit.torch.training.together import is_share

__all__ = ["gather_", "shared_out"]


def shared_out(module: nn.Module, ranks: Ranks) -> nn.Module:
    """A copy of a module of which each process holds a share of every parameter, those of the first process.

    Whatever stands in a row of modules (``nn.Sequential``, ``nn.ModuleList``) is made whole by itself, one after the
    other.

    Raises:
        ModelError: Parameters are no float32 numbers, or are used in two places under two names.
    """
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    if len(names) > len(list(module.parameters())):
        raise ModelError(f"{type(module).__name__} shares parameters between modules, which cannot be shared out")
    with torch.no_grad():
        for tensor in module.state_dict().values():
            ranks.copy_(tensor)
    shared = copy.deepcopy(module)
    mesh = DeviceMesh.from_group(group(), "cpu")
    rows = [one for one in shared.modules() if isinstance(one, nn.Sequential | nn.ModuleList) and one is not shared]
    for row in reversed(rows):
        for one in row:
            if any(True for _ in one.parameters()):
                fully_shard(one, mesh=mesh)
    fully_shard(shared, mesh=mesh)
    return shared


@torch.no_grad()
def gather_(shared: nn.Module, into: nn.Module) -> None:
    """Put what all processes hold into the module that ``shared_out`` was given, in each of them."""
    target = into.state_dict()
    for name, tensor in shared.state_dict().items():
        target[name].copy_(tensor.full_tensor() if is_share(tensor) else tensor)  # type: ignore[attr-defined]

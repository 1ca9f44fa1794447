"""Training on several processes: the gradients' mean, the same start, the same decisions.

The modules are **not** wrapped in ``DistributedDataParallel``. A task may call its modules in any order, several
times, in several phases, through methods other than ``forward``; hooks on ``backward`` would then have to know which
backward pass is the last one of a step. Instead, after the last accumulated pass of a phase, the gradients of that
phase's parameters are averaged explicitly, in flat buckets. That is the same arithmetic, right for every task, and it
gives up only the overlap of communication with the backward pass.

With ``strategy: fsdp`` each module is sharded by ``fully_shard``, which averages gradients itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from lightning.fabric import Fabric
from torch import Tensor, nn

from crossmodal.errors import ConfigError
from crossmodal.training.config import TrainerConfig

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
_BUCKET = 2**24
"""Values in one message."""


def make_fabric(config: TrainerConfig) -> Fabric:
    """The engine: devices, processes and precision."""
    several = config.devices * config.nodes > 1
    try:
        return Fabric(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.nodes,
            strategy="ddp" if several else "auto",
            precision=_PRECISION[config.precision],  # type: ignore[arg-type]
        )
    except (RuntimeError, ValueError, ImportError) as error:
        problem = " ".join(str(error).split())
        raise ConfigError(f"devices cannot be used ({problem})", source="trainer") from error


def active() -> bool:
    """Whether there is more than one process."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def average_(values: Tensor) -> Tensor:
    """Replace ``values`` by their mean over processes."""
    if active():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over processes.

    A parameter without a gradient on some process counts as zero there; one without any gradient stays without.
    """
    parameters = [p for p in parameters if p.requires_grad]
    if not active() or not parameters:
        return
    used = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(used)
    gradients = []
    for parameter, count in zip(parameters, used.tolist(), strict=True):
        if count and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if count and not hasattr(parameter, "full_tensor"):  # sharded gradients are averaged already
            gradients.append(parameter.grad)
    for bucket in _buckets([g for g in gradients if g is not None]):
        flat = average_(torch.cat([g.reshape(-1) for g in bucket]))
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


@torch.no_grad()
def same_start(modules: nn.Module) -> None:
    """Give every process the weights of process 0."""
    if active():
        for value in modules.state_dict().values():
            dist.broadcast(value, 0)


@torch.no_grad()
def average_buffers(modules: nn.Module) -> None:
    """Average the batch-norm statistics over processes (each process has seen its own share of the batches)."""
    if active():
        for buffer in modules.buffers():
            if buffer.is_floating_point():
                average_(buffer)


def shard(modules: nn.ModuleDict, device: str) -> None:
    """Shard parameters, gradients and optimiser state of each module over the processes (FSDP).

    A module gathers its parameters when it is *called*: a task that uses other methods than ``forward`` needs ``ddp``.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (dist.get_world_size(),))
    for module in modules.values():
        fully_shard(module, mesh=mesh)


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.numel()
    if bucket:
        yield bucket

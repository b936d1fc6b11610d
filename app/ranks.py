"""This process among its gang: rank, process group, the few collectives besides DDP's own."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from app.config import TrainConfig
from app.resilience.exit_codes import PORT_IN_USE, ExitCode, TrainingError


@dataclass(frozen=True)
class Rank:
    """Who this process is; set by the launcher (env:// variables), alone where nobody set them."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @staticmethod
    def from_environment(environ: Mapping[str, str]) -> Rank:
        """RANK, LOCAL_RANK and WORLD_SIZE."""
        return Rank(*(int(environ.get(name, default)) for name, default in
                      (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1))))  # fmt: skip

    @property
    def is_first(self) -> bool:
        """Whether this is global rank 0, which alone reads and writes files and speaks for the gang."""
        return self.rank == 0

    def join(self, config: TrainConfig, backend: str) -> None:
        """Meets the other ranks and makes the process group.

        The group's own time-out is longer than the launcher's watchdog, so that a hang is the watchdog's to report.

        Raises:
            TrainingError: 140, not all ranks came within --rendezvous_timeout.
        """
        if self.world_size == 1:
            return
        if config.master_addr in ("127.0.0.1", "localhost", "::1"):
            # gloo would look up the host's own name, which need not resolve on a laptop.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        try:
            store = TCPStore(
                config.master_addr, config.master_port, self.world_size, is_master=self.is_first,
                timeout=datetime.timedelta(seconds=config.rendezvous_timeout),
            )  # fmt: skip
            dist.init_process_group(
                backend, store=store, rank=self.rank, world_size=self.world_size,
                timeout=datetime.timedelta(seconds=4 * config.watchdog_seconds),
            )  # fmt: skip
        except (dist.DistError, RuntimeError) as error:
            if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
                raise TrainingError(
                    ExitCode.DEVICE,
                    f"--master_port: port {config.master_port} is in use on this machine, give a free one",
                    PORT_IN_USE,
                ) from None
            raise TrainingError(
                ExitCode.LOST_PEER,
                f"rank {self.rank} did not meet all {self.world_size} ranks at {config.master_addr}:"
                f"{config.master_port} within {config.rendezvous_timeout:g} s: {str(error).splitlines()[0]}",
            ) from None

    def tell(self, value: Any) -> Any:
        """Rank 0's value, on every rank. The value must be picklable; it comes from the own gang only."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank. Values must be picklable; they come from the own gang only."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: list[torch.Tensor]) -> None:
        """Overwrites the tensors with rank 0's, in place, on their device."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all ranks of a CPU tensor, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
        return tensor

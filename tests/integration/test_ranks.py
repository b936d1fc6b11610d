"""Ranks that meet at a port."""

from __future__ import annotations

import socket

import pytest

from app.config import TrainConfig
from app.ranks import Rank
from app.resilience.exit_codes import PORT_IN_USE, ExitCode, TrainingError


def test_a_port_that_was_taken_after_the_launcher_looked_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = TrainConfig(model="resnet18", batch_size=1, learning_rate=1.0, device="cpu", master_port=port)
        with pytest.raises(TrainingError, match=f"^--master_port: port {port} is in use on this machine") as caught:
            Rank(rank=0, world_size=2).join(config, "gloo")
    assert (caught.value.code, caught.value.reason) == (ExitCode.DEVICE, PORT_IN_USE)

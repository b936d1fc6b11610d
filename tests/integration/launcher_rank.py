"""A rank without a training: does what FAKE_RANKS says for its number, by the contract that the launcher relies on."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from app.resilience import outcome
from app.resilience.heartbeat import ENV_HEARTBEAT, Heart, Phase
from app.resilience.parent import die_with_parent

STEP_SECONDS = 0.02


def leave(code: int, message: str, **more: str) -> None:
    outcome.write(Path(os.environ[outcome.ENV_OUTCOME]), outcome.Outcome(code, message, **more))
    sys.exit(code)


def main() -> None:
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL, int(os.environ["RESNET_LAUNCHER_PID"]))
    rank = os.environ["RANK"]
    what, _, value = json.loads(os.environ["FAKE_RANKS"]).get(rank, "finish").partition(":")
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stops.append(number))
    said = {"rank": int(rank), "pid": os.getpid(), "argv": sys.argv[1:], "env": dict(os.environ)}
    child = subprocess.check_output(["cat", "/proc/self/status"], text=True)  # where the loader's workers would run
    said["cpus"] = child.partition("Cpus_allowed_list:")[2].split()[0]
    os.write(1, f"{json.dumps(said)}\n".encode())  # in one piece: the ranks share this file
    if what == "silent":
        time.sleep(600)
    heart = Heart(Path(os.environ[ENV_HEARTBEAT]))
    heart.beat(phase=Phase.TRAIN, epoch=1, epochs=2, steps=1000, loss=0.25, top1=0.5, checkpoint_step=7)
    for step in range(1, 1_000_000):
        time.sleep(STEP_SECONDS)
        heart.beat(step=step, busy_seconds=step * STEP_SECONDS)
        if stops and what != "ignore":
            leave(143, f"stopped at step {step} after {len(stops)} signal")
        if step < 10:
            continue
        if what == "finish":
            leave(0, "done", exported="/somewhere/model.onnx")
        elif what == "fail":
            code, _, message = value.partition(":")
            leave(int(code), message, exception="RuntimeError")
        elif what == "exit":
            sys.exit(int(value))
        elif what == "signal":
            os.kill(os.getpid(), int(value))
        elif what == "leave-worker":
            worker = subprocess.Popen(["sleep", "600"])
            Path(value).write_text(str(worker.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "hang":
            time.sleep(600)


if __name__ == "__main__":
    main()

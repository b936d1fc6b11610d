"""Stands in for `app.run_resnet` in tests of the local backend: the same contract with its surroundings, no training.

Usage: fake_launcher.py WHAT FLAGS. WHAT: "train" ends well after 10 steps; "kill-once" is killed by SIGKILL at step 5
of its first attempt on node 0; "wait" trains until SIGTERM; "stubborn" also ignores that; "fail:CODE" ends at once.
"""

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

STEPS = 10
CHECKPOINT = 4


def main() -> None:
    what = sys.argv[1]
    flags = dict(arg.split("=", 1) for arg in sys.argv[2:] if "=" in arg)
    env = os.environ
    attempt, node = int(env["RESNET_ATTEMPT"]), int(env["PET_NODE_RANK"])
    root = Path(flags["--checkpoint_dir"])
    start = root / str(attempt)
    resumed = attempt > 1
    state = {
        "namespace": env["RESNET_NAMESPACE"],
        "experiment": env["RESNET_EXPERIMENT"],
        "attempt": attempt,
        "pod": env["RESNET_POD"],
        "phase": "train",
        "epoch": 1,
        "epochs": int(flags["--epoch"]),
        "step": CHECKPOINT if resumed else 0,
        "steps": STEPS,
        "loss": 2.0,
        "top1": 0.5,
        "best_top1": 0.5,
        "images_per_second": 100.0,
        "eta_seconds": 1.0,
        "last_checkpoint": CHECKPOINT if resumed else None,
    }

    def end(code: int, reason: str, message: str) -> None:
        words = state | {"exit_code": code, "reason": reason, "message": message, "exception": ""}
        Path(env["RESNET_TERMINATION_MESSAGE_PATH"]).write_text(json.dumps(words))
        print(f"fake launcher: {message}", flush=True)
        os._exit(code)

    def stop(*_: object) -> None:
        end(143, "Stopped", "stopped after a checkpoint")

    signal.signal(signal.SIGTERM, signal.SIG_IGN if what == "stubborn" else stop)
    print("fake launcher:", json.dumps({"argv": sys.argv, "env": dict(env), "cwd": os.getcwd()}), flush=True)
    if what.startswith("fail:"):
        end(int(what[5:]), "DataMissing", "the data set is not there")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"resnet_training_epoch 1\n" if self.path == "/metrics" else json.dumps(state).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(env["RESNET_METRICS_PORT"])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def event(kind: str, **values: object) -> None:
        if node == 0:
            start.mkdir(parents=True, exist_ok=True)
            head = {"time": time.time(), "kind": kind, "attempt": attempt, "epoch": 1, "step": state["step"]}
            with open(start / "events.jsonl", "a") as file:
                file.write(json.dumps(head | values) + "\n")

    event("start", world_size=2, global_batch=64, parent=None)
    while state["step"] < STEPS or what in ("wait", "stubborn"):
        time.sleep(0.1)
        if what in ("train", "kill-once") or state["step"] < CHECKPOINT + 1:
            state["step"] += 1
            event("train", loss=2.0 / state["step"], learning_rate=0.1, images_per_second=100.0)
        if state["step"] == CHECKPOINT:
            state["last_checkpoint"] = CHECKPOINT
        if what == "kill-once" and not resumed and node == 0 and state["step"] == CHECKPOINT + 3:
            time.sleep(1.0)  # so that it has been seen at this step
            os.kill(os.getpid(), signal.SIGKILL)
    event("validate", top1=0.99, top5=1.0, loss=0.1, images=360)
    if node == 0:
        (start / "model.onnx").write_bytes(b"model of attempt %d" % attempt)
    state.update(phase="done", top1=0.99, best_top1=0.99, last_checkpoint=STEPS, exported=str(start / "model.onnx"))
    end(0, "Done", "done")


if __name__ == "__main__":
    main()

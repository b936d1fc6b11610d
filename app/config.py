"""TrainConfig: every option of the training, once.

The command line (app.command_line), the checks and the help, the `spec.training` fields of a ResNetExperiment and the
documentation are all made from the fields below. Standard library only: the launcher and the controller import it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.accelerators import BACKENDS, DEVICE_TYPES
from app.data.datasets import DATASETS
from app.schedule import auto_warmup_epochs

MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

MIN_IMAGE_SIZE = 18
"""Below it the last stage of a ResNet reads 1x1 maps, whose bf16 weight gradients oneDNN leaves uninitialised."""


class ConfigError(ValueError):
    """An option that is not as it should be.

    Attributes:
        option: the TrainConfig field ("learning_rate"); `flag_of` gives its flag.
        problem: what was wrong and what would be right, without the option's name.
    """

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{flag_of(option)}: {problem}")
        self.option = option
        self.problem = problem


@dataclass(frozen=True)
class Option:
    """What is known of one TrainConfig field besides its type and default.

    Attributes:
        flags: command-line names, the first one is shown in messages.
        help: one line.
        low, high: inclusive bounds of a number. `off` is allowed besides them.
        off: the value that means "not set" or "automatic" (-1, 0 …), allowed outside the bounds.
        off_word: what a person writes for `off` on the command line, where the number says nothing.
        choices: the allowed words.
        env: environment variables looked at, in order, where the flag is absent.
        spec: name in `spec.training` of a ResNetExperiment; None: set by another part of the spec, or not at all.
        required: the flag must be given on the command line (in a spec, the controller derives it).
    """

    flags: tuple[str, ...]
    help: str
    low: float | None = None
    high: float | None = None
    off: float | None = None
    off_word: str = ""
    choices: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    spec: str | None = None
    required: bool = False

    @property
    def off_shown(self) -> str:
        """`off` as a person writes it, "" where there is none."""
        return self.off_word or ("" if self.off is None else f"{self.off:g}")


def _option(default: Any, *flags: str, help: str, **facts: Any) -> Any:
    return dataclasses.field(default=default, metadata={"option": Option(flags, help, **facts)})


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of the training. Field order is the order of `--help`."""

    # What is trained
    model: str = _option("", "--model_name", help="network", choices=MODELS, required=True)
    dataset: str = _option("imagenet", "--dataset", help="data set", choices=tuple(DATASETS))
    dataset_path: str = _option(
        "", "--dataset_path", help="folder that holds train/ and val/ (digits, synthetic: not needed)"
    )
    image_size: int = _option(
        0, "--image_size", help="side of the training images in pixels, 0 = the data set's own (ImageNet: 224)",
        low=MIN_IMAGE_SIZE, high=1024, off=0, spec="imageSize",
    )  # fmt: skip
    eval_size: int = _option(
        0, "--eval_size", help="side of the images in validation and in the exported network, 0 = the training's",
        low=MIN_IMAGE_SIZE, high=1024, off=0, spec="evalSize",
    )  # fmt: skip
    pretrained: str = _option(
        "", "--pretrained",
        help="PATH of weights to begin with: a .pth, .pt or .safetensors, or a checkpoint (step-<k>); the last layer "
        "is new where the classes differ",
        spec="pretrained",
    )  # fmt: skip
    # For how long, and how
    epochs: int = _option(1, "--epoch", help="epochs to train", low=1, high=100_000, spec="epochs")
    steps_per_epoch: int = _option(
        -1, "--step", help="steps of each epoch; > 0 turns validation and checkpoints off, -1 = the whole data set",
        low=1, high=10_000_000, off=-1, spec="stepsPerEpoch",
    )  # fmt: skip
    batch_size: int = _option(
        0, "--batch_size", "--bs", help="images per step and DEVICE (rank)", low=1, high=65_536,
        spec="batchSizePerDevice", required=True,
    )  # fmt: skip
    accumulate: int = _option(
        1, "--accumulate", help="batches whose gradients are added up for one optimizer step", low=1, high=4096,
        spec="accumulate",
    )  # fmt: skip
    learning_rate: float = _option(
        0.0, "--lr", "--learning-rate", help="peak learning rate, used as it is (the recipe's: global batch / 1000)",
        low=1e-9, high=1000.0, spec="learningRate", required=True,
    )  # fmt: skip
    warmup_epochs: int = _option(
        -1, "--warm_up", help="epochs of linear warm-up, -1 = 2 x (global batch // 256)", low=0, high=100_000,
        off=-1, spec="warmupEpochs",
    )  # fmt: skip
    optimizer: str = _option(
        "sgd", "--optimizer", help="optimizer", choices=("sgd", "rmsprop", "adam"), spec="optimizer"
    )
    mlperf_mode: bool = _option(
        False, "--mlperf_mode", help="LARS and polynomial decay instead of --optimizer and cosine", spec="mlperfMode"
    )
    decay_filter: str = _option(
        "seed", "--decay_filter", help="exempt from weight decay: names containing 'bn' (seed) or all 1-d (norm-bias)",
        choices=("seed", "norm-bias"), spec="decayFilter",
    )  # fmt: skip
    early_stop: int = _option(
        -1, "--early_stop", help="end after so many epochs, at the learning rates of all --epoch ones, -1 = never",
        low=1, high=100_000, off=-1, spec="earlyStop",
    )  # fmt: skip
    ema: float = _option(
        0.0, "--ema", help="decay of a moving average of the weights, which is validated and exported; 0 = off",
        low=0.1, high=0.999999, off=0, spec="ema",
    )  # fmt: skip
    seed: int = _option(
        1234, "--seed", help="seed of weights, order and augmentation", low=0, high=2**31 - 1, spec="seed"
    )
    # Numerics
    autocast: bool = _option(
        False, "--autocast", help="mixed precision: fp16 on sdaa, bf16 on cuda (with a loss scale fp16) and a fast cpu",
        spec="autocast",
    )  # fmt: skip
    grad_scale: bool = _option(
        False,
        "--grad_scale",
        help="dynamic loss scaling (GradScaler from 65536) where autocast is fp16",
        spec="gradScale",
    )
    loss_scale: float = _option(
        0.0, "--loss_scale", help="static loss scale instead of the dynamic one, 0 = off", low=1.0, high=2.0**24, off=0,
        spec="lossScale",
    )  # fmt: skip
    compile: bool = _option(False, "--compile", help="torch.compile the network", spec="compile")
    # Where it runs
    device: str = _option("", "--device", help="device type", choices=DEVICE_TYPES, required=True)
    nproc_per_node: int = _option(
        1, "--nproc_per_node", help="processes (devices) on this node, auto = as many as it has (cpu: NUMA nodes)",
        low=1, high=256, off=0, off_word="auto",
    )  # fmt: skip
    nnodes: int = _option(1, "--nnode", help="nodes", low=1, high=4096, env=("PET_NNODES",))
    node_rank: int = _option(
        0, "--node_rank", help="number of this node, from 0", low=0, high=4095, env=("PET_NODE_RANK",)
    )
    master_addr: str = _option(
        "127.0.0.1", "--master_addr", help="address of node 0", env=("MASTER_ADDR", "PET_MASTER_ADDR")
    )
    master_port: int = _option(
        29500, "--master_port", help="port of the rendezvous on node 0", low=1, high=65_535,
        env=("MASTER_PORT", "PET_MASTER_PORT"),
    )  # fmt: skip
    cpu_binding: str = _option(
        "auto", "--cpu_binding", help="bind each rank to CPUs of its own, or to NUMA nodes where pods share the CPUs",
        choices=("auto", "none"), spec="cpuBinding",
    )  # fmt: skip
    num_workers: int = _option(2, "--num_workers", help="loader workers per rank", low=0, high=256, spec="numWorkers")
    max_bad_images: float = _option(
        0.001, "--max_bad_images",
        help="share of the training images that may be undecodable (others of their class stand in); one always may, "
        "unless it is 0",
        low=0.0, high=1.0, spec="maxBadImages",
    )  # fmt: skip
    # What is kept
    checkpoint_dir: str = _option(
        "", "--checkpoint_dir", help="where checkpoints go (default ./checkpoints/<model_name>)"
    )
    checkpoint_minutes: float = _option(
        10.0, "--checkpoint_minutes", help="at most so many minutes between checkpoints, besides one an epoch",
        low=0.01, high=10_080.0,
    )  # fmt: skip
    index_cache: str = _option(
        "auto", "--index_cache",
        help="folder for the listing of an image folder, which later starts only bring up to date; auto = index in "
        "--checkpoint_dir (not with --step), none = list every file at every start",
        spec="indexCache",
    )  # fmt: skip
    keep: int = _option(3, "--keep", help="checkpoints kept besides the best", low=1, high=1000)
    resume: str = _option(
        "auto", "--resume",
        help="auto (the newest good checkpoint), none, or the PATH of a checkpoint: ours, or another's .pth",
    )  # fmt: skip
    trust_checkpoint: bool = _option(
        False, "--trust_checkpoint", help="read a .pth even with torch before 2.6, which may run code that it brings",
        spec="trustCheckpoint",
    )  # fmt: skip
    adopt: bool = _option(False, "--adopt", help="take over a checkpoint directory that another experiment wrote")
    export: bool = _option(True, "--export", help="write model.onnx at the end", spec="export")
    # What is said
    log_interval: int = _option(
        20, "--log_interval", help="steps between log lines", low=1, high=1_000_000, spec="logInterval"
    )
    profiler: bool = _option(
        False, "--profiler", help="trace steps 10 to 20 of rank 0 with torch.profiler", spec="profiler"
    )
    profiler_dir: str = _option("./profiler", "--profiler_dir", help="where --profiler True writes")
    metrics_port: int = _option(
        0, "--metrics_port", help="port of /metrics, /progress and /healthz, 0 = none", low=1, high=65_535, off=0,
        env=("RESNET_METRICS_PORT",),
    )  # fmt: skip
    gang_port: int = _option(
        9402, "--gang_port", help="port on node 0 where the launchers of one gang hear each other", low=1, high=65_535,
        env=("RESNET_GANG_PORT",),
    )  # fmt: skip
    # Limits
    watchdog_seconds: float = _option(
        600.0, "--watchdog_seconds",
        help="a phase without a step for so long is a hang (start, scan, first step, export: x 3)",
        low=1.0, high=86_400.0, spec="watchdogSeconds",
    )  # fmt: skip
    grace_seconds: float = _option(
        120.0, "--grace_seconds", help="seconds from SIGTERM to SIGKILL", low=6.0, high=86_400.0
    )
    rendezvous_timeout: float = _option(
        600.0, "--rendezvous_timeout", help="seconds to wait for the other nodes", low=1.0, high=86_400.0
    )
    print_plan: bool = _option(False, "--print_plan", help="start nothing, print the plan as JSON")

    @property
    def world_size(self) -> int:
        """Ranks of the whole gang.

        Raises:
            ConfigError: not known yet: the launcher puts the number of devices in the place of "auto".
        """
        if not self.nproc_per_node:
            raise ConfigError("nproc_per_node", "is auto, which only the launcher (app.run_resnet) can count: give it")
        return self.nnodes * self.nproc_per_node

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all ranks and accumulated batches."""
        return self.world_size * self.batch_size * self.accumulate

    @property
    def warmup(self) -> int:
        """Epochs of warm-up, with -1 resolved by the recipe's rule."""
        return auto_warmup_epochs(self.global_batch) if self.warmup_epochs < 0 else self.warmup_epochs

    @property
    def size(self) -> int:
        """Side of the training images in pixels, with 0 resolved."""
        return self.image_size or DATASETS[self.dataset].image_size

    @property
    def evaluation_size(self) -> int:
        """Side of the validation images in pixels, with 0 resolved."""
        return self.eval_size or self.size

    @property
    def last_epoch(self) -> int:
        """Number of the epoch that ends the run, from 1; the learning rates are those of all `epochs`."""
        return min(self.epochs, self.early_stop) if self.early_stop > 0 else self.epochs

    @property
    def resumes_from(self) -> str:
        """The checkpoint that `resume` names, "" for none and auto."""
        return "" if self.resume in ("auto", "none") else self.resume

    @property
    def index_folder(self) -> str:
        """Where the listing of an image folder is kept, "" for nowhere."""
        if self.index_cache == "auto":
            return os.path.join(self.checkpoints, "index") if self.steps_per_epoch <= 0 else ""
        return "" if self.index_cache == "none" else self.index_cache

    @property
    def checkpoints(self) -> str:
        """The checkpoint directory, with the default resolved."""
        return self.checkpoint_dir or os.path.join("checkpoints", self.model)


OPTIONS: dict[str, tuple[Option, dataclasses.Field[Any]]] = {
    f.name: (f.metadata["option"], f) for f in dataclasses.fields(TrainConfig)
}
"""Field name -> (its facts, the dataclass field), in the order of the class."""


def flag_of(name: str) -> str:
    """The flag of a field, as messages show it."""
    return OPTIONS[name][0].flags[0] if name in OPTIONS else name


def type_of(name: str) -> type:
    """int, float, bool or str."""
    return type(OPTIONS[name][1].default)


def check(config: TrainConfig) -> None:
    """Checks every field by itself, then what two fields say together.

    Raises:
        ConfigError: names the first option that is wrong, and what would be right.
    """
    for name, (option, _) in OPTIONS.items():
        check_value(name, getattr(config, name))
        if option.required and option.choices and not getattr(config, name):
            raise ConfigError(name, f"is required: one of {', '.join(option.choices)}")
    if config.node_rank >= config.nnodes:
        raise ConfigError(
            "node_rank", f"is {config.node_rank}, but with --nnode {config.nnodes} it is 0 to {config.nnodes - 1}"
        )
    if DATASETS[config.dataset].needs_path and not config.dataset_path:
        raise ConfigError(
            "dataset_path", f"is required with --dataset {config.dataset}: the folder with train/ and val/"
        )
    if config.loss_scale and config.grad_scale:
        raise ConfigError("loss_scale", "is a static scale and --grad_scale True a dynamic one: give one of them")
    if config.mlperf_mode and config.optimizer != "sgd":
        raise ConfigError("optimizer", f"is {config.optimizer}, but --mlperf_mode True trains with LARS: leave it out")
    if config.pretrained and config.resumes_from:
        raise ConfigError(
            "pretrained", f"begins a training, and --resume {config.resumes_from} goes on with one: give one of them"
        )
    if config.image_size and config.image_size % 2:
        raise ConfigError("image_size", f"must be even, not {config.image_size}")


def check_value(name: str, value: Any) -> None:
    """Checks one field by itself: type, bounds, choices.

    Raises:
        ConfigError: as `check`.
    """
    option, _ = OPTIONS[name]
    expected = type_of(name)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        raise ConfigError(name, f"must be {words(expected)}, not {value!r}")
    if option.choices and value and value not in option.choices:
        raise ConfigError(name, not_among(str(value), option.choices))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ConfigError(name, f"must be a finite number, not {value}")
        low = -math.inf if option.low is None else option.low
        high = math.inf if option.high is None else option.high
        if value != option.off and not low <= value <= high:
            besides = f" (or {option.off_shown})" if option.off_shown else ""
            raise ConfigError(name, f"must be {low:.12g} to {high:.12g}{besides}, not {value:.12g}")
    if isinstance(value, str) and any(ord(c) < 32 for c in value):
        raise ConfigError(name, "holds a control character")


def words(kind: type) -> str:
    """A type as a person says it."""
    return {int: "a whole number", float: "a number", bool: "True or False", str: "text"}[kind]


def not_among(value: str, choices: Sequence[str]) -> str:
    """What is wrong with a word that is none of the choices, with the nearest of them."""
    close = difflib.get_close_matches(value, choices, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{value!r} is not one of {', '.join(choices)}{hint}"


def plan(config: TrainConfig) -> dict[str, Any]:
    """What a run of this configuration will do, as `--print_plan True` prints it."""
    return {
        "model": config.model,
        "dataset": config.dataset,
        "dataset_path": config.dataset_path or None,
        "image_size": config.size,
        "device": config.device,
        "backend": BACKENDS[config.device],
        "world_size": config.world_size,
        "nnodes": config.nnodes,
        "nproc_per_node": config.nproc_per_node,
        "batch_size_per_device": config.batch_size,
        "accumulate": config.accumulate,
        "global_batch": config.global_batch,
        "learning_rate": config.learning_rate,
        "warmup_epochs": config.warmup,
        "epochs": config.epochs,
        "optimizer": "lars" if config.mlperf_mode else config.optimizer,
        "autocast": config.autocast,
        "grad_scale": config.grad_scale,
        "seed": config.seed,
        "checkpoint_dir": config.checkpoints,
    }

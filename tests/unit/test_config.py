"""The command line: every flag of the seed, defaults, refusals."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.command_line import parse, parser, to_args
from app.config import OPTIONS, ConfigError, TrainConfig, check, plan, type_of

REQUIRED = ["--model_name", "resnet50", "--bs", "64", "--lr", "0.256", "--device", "sdaa", "--dataset_path", "/d"]
SEED_ROWS = [
    ("--nproc_per_node 4 --lr 0.256 --epoch 50", 4, 256, 0.256, 2),
    ("--nproc_per_node 16 --lr 1.024 --epoch 50", 16, 1024, 1.024, 8),
    ("--nproc_per_node 32 --lr 2.048 --epoch 90", 32, 2048, 2.048, 16),
    ("--nnode 2 --node_rank 1 --master_addr 10.0.0.1 --master_port 29500 --nproc_per_node 16 --lr 2.048 --epoch 50",
     32, 2048, 2.048, 16),
]  # fmt: skip


def refusal(*argv: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse([*REQUIRED, *argv], environ or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("flags", "ranks", "batch", "rate", "warmup"), SEED_ROWS)
def test_the_seeds_commands_mean_what_the_seed_says(flags, ranks, batch, rate, warmup) -> None:
    common = "--model_name resnet50 --bs 64 --device sdaa --dataset_path /datasets/imagenet/ --grad_scale True"
    made = plan(parse(f"{common} --autocast True {flags}".split(), {}))
    assert (made["world_size"], made["global_batch"], made["learning_rate"], made["warmup_epochs"]) == (
        ranks, batch, rate, warmup,
    )  # fmt: skip
    assert made["backend"] == "tccl"


def test_the_defaults_are_the_seeds() -> None:
    config = parse(REQUIRED, {})
    seed = {
        "epochs": 1, "steps_per_epoch": -1, "nproc_per_node": 1, "nnodes": 1, "node_rank": 0, "master_port": 29500,
        "master_addr": "127.0.0.1", "num_workers": 2, "autocast": False, "grad_scale": False, "compile": False,
        "profiler": False, "early_stop": -1, "mlperf_mode": False, "warmup_epochs": -1, "optimizer": "sgd",
        "dataset": "imagenet",
    }  # fmt: skip
    assert {name: getattr(config, name) for name in seed} == seed


def test_the_aliases_mean_the_same() -> None:
    short = parse(REQUIRED, {})
    long = parse([{"--bs": "--batch_size", "--lr": "--learning-rate"}.get(word, word) for word in REQUIRED], {})
    assert short == long


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr", "fast"], "--lr: must be a number, not 'fast'"),
        (["--lr", "0"], "--lr: must be 1e-09 to 1000, not 0"),
        (["--lr", "nan"], "--lr: must be a finite number, not nan"),
        (["--bs", "0"], "--batch_size: must be 1 to 65536, not 0"),
        (["--bs", "1.5"], "--batch_size: must be a whole number, not '1.5'"),
        (["--model_name", "resnet5"], "--model_name: 'resnet5' is not one of resnet18, resnet34, resnet50, resnet101, "
         "resnet152 (did you mean 'resnet50'?)"),
        (["--device", "rocm"], "--device: 'rocm' is not one of sdaa, cuda, cpu"),
        (["--autocast", "maybe"], "--autocast: must be True or False, not 'maybe'"),
        (["--warm_up", "-2"], "--warm_up: must be 0 to 100000 (or -1), not -2"),
        (["--nnode", "2", "--node_rank", "2"], "--node_rank: is 2, but with --nnode 2 it is 0 to 1"),
        (["--loss_scale", "128", "--grad_scale", "True"], "--loss_scale: is a static scale and --grad_scale True a "
         "dynamic one: give one of them"),
        (["--optimizer", "adam", "--mlperf_mode", "True"], "--optimizer: is adam, but --mlperf_mode True trains with "
         "LARS: leave it out"),
        (["--pretrained", "r50.pth", "--resume", "/c/step-3"], "--pretrained: begins a training, and --resume "
         "/c/step-3 goes on with one: give one of them"),
        (["--nproc_per_node", "all"], "--nproc_per_node: must be a whole number or auto, not 'all'"),
        (["--nproc_per_node", "-1"], "--nproc_per_node: must be 1 to 256 (or auto), not -1"),
        (["--cpu_binding", "core"], "--cpu_binding: 'core' is not one of auto, none"),
        (["--ema", "1"], "--ema: must be 0.1 to 0.999999 (or 0), not 1"),
        (["--early_stop", "0"], "--early_stop: must be 1 to 100000 (or -1), not 0"),
        (["--epochs", "5"], "command line: unknown argument '--epochs', did you mean --epoch?"),
        (["--dataset_path", "a\nb"], "--dataset_path: holds a control character"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line_that_names_the_flag(argv: list[str], message: str) -> None:
    assert refusal(*argv) == message


@pytest.mark.parametrize(
    ("flags", "last", "size", "evaluation_size"),
    [("", 1, 224, 224), ("--epoch 90 --early_stop 5", 5, 224, 224), ("--epoch 3 --early_stop 5", 3, 224, 224),
     ("--image_size 176", 1, 176, 176), ("--image_size 176 --eval_size 224", 1, 176, 224)],
)  # fmt: skip
def test_what_is_left_out_follows_from_the_rest(flags: str, last: int, size: int, evaluation_size: int) -> None:
    config = parse([*REQUIRED, *flags.split()], {})
    assert (config.last_epoch, config.size, config.evaluation_size) == (last, size, evaluation_size)


def test_auto_is_a_number_that_only_the_launcher_knows() -> None:
    config = parse([*REQUIRED, "--nproc_per_node", "auto"], {})
    assert config.nproc_per_node == 0
    assert "--nproc_per_node=auto" in to_args(config)
    with pytest.raises(ConfigError, match="--nproc_per_node: is auto, which only the launcher"):
        _ = config.global_batch


def test_a_missing_flag_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^--model_name: is required: network, one of resnet18, resnet34, "):
        parse([], {})
    with pytest.raises(ConfigError, match=r"^--lr: is required"):
        parse(["--model_name", "resnet18", "--bs", "1", "--device", "cpu"], {})
    with pytest.raises(ConfigError, match=r"^--dataset_path: is required with --dataset imagenet"):
        parse(["--model_name", "resnet18", "--bs", "1", "--device", "cpu", "--lr", "1"], {})


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_default() -> None:
    environ = {"PET_NNODES": "4", "PET_NODE_RANK": "3", "MASTER_ADDR": "job-worker-0", "MASTER_PORT": "23456"}
    config = parse(REQUIRED, environ)
    assert (config.nnodes, config.node_rank, config.master_addr, config.master_port) == (4, 3, "job-worker-0", 23456)
    assert parse([*REQUIRED, "--nnode", "8"], environ).nnodes == 8
    assert "PET_NNODES" not in refusal("--nnode", "x", environ=environ)


def test_help_shows_every_flag() -> None:
    text = parser("x").format_help()
    assert all(flag in text for option, _ in OPTIONS.values() for flag in option.flags)


def values_of(name: str) -> st.SearchStrategy:
    option, _ = OPTIONS[name]
    kind = type_of(name)
    if kind is bool:
        return st.booleans()
    if option.choices:
        return st.sampled_from(option.choices)
    if kind is str:
        return st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=20)
    low, high = option.low or 0, option.high
    number = st.integers(int(low), int(high)) if kind is int else st.floats(low, high)
    return number | st.just(kind(option.off)) if option.off is not None else number


@given(st.fixed_dictionaries({name: values_of(name) for name in OPTIONS}))
def test_what_to_args_writes_parse_reads_back(values: dict) -> None:
    config = TrainConfig(**values)
    try:
        check(config)
    except ConfigError:
        return
    assert parse(to_args(config), {}) == config


def test_every_option_reaches_the_spec_or_has_a_place_of_its_own_there() -> None:
    specs = [option.spec for option, _ in OPTIONS.values() if option.spec]
    assert len(specs) == len(set(specs))
    assert all(re.fullmatch(r"[a-z][a-zA-Z]*", name) for name in specs)
    assert {f.name for f in dataclasses.fields(TrainConfig)} == set(OPTIONS)

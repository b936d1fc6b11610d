"""The images of the Dockerfiles, built and run: the seed's commands typed in them, PID 1, the operator's command."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import yaml

from app.data import digits
from app.resilience.exit_codes import ExitCode
from tests.cluster.images.base import REPOSITORY
from tests.cluster.images.build import CONDA_TRAINING, build_conda_image, build_images, name
from tests.cluster.images.store import Store
from tests.e2e.container import container

RUN_SCRIPTS = "/workspace/Classification/ResNet/run_scripts"
USER = 1000
# The seed's command for one card, on the processor: the device, the network and the size of the images are smaller.
SEED_COMMAND = (
    "python run_resnet.py --model_name resnet18 --nproc_per_node {ranks} --bs 64 --lr 0.256 --device cpu "
    "--epoch {epochs} --dataset_path /datasets/imagenet/ --grad_scale True --autocast True --image_size 32"
)
# A child that ends before its own child does, which is then PID 1's to wait for.
ORPHAN = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(0.2)
    os._exit(0)
os.wait()
time.sleep(1)
states = {p: open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] for p in os.listdir("/proc") if p.isdigit()}
print(open("/proc/1/comm").read().strip(), sorted(states.values()))
"""


@pytest.fixture(scope="module")
def store() -> Store:
    return build_images()


@pytest.fixture(scope="module")
def conda_store() -> Store:
    return build_conda_image()


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for /datasets, with real JPEGs where the seed has ImageNet."""
    folder = tmp_path_factory.mktemp("datasets")
    digits.write(folder / "imagenet")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """A volume that the image's user may write."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    os.chown(folder, USER, USER)
    return folder


def test_without_a_command_the_image_explains_itself(store: Store, tmp_path: Path) -> None:
    with container(store, name("training"), tmp_path) as box:
        done = box.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python -m app.run_resnet")


def test_the_seeds_command_typed_in_the_image_trains_and_exports(
    store: Store, tmp_path: Path, datasets: Path, checkpoints: Path
) -> None:
    volumes = {datasets: "/datasets", checkpoints: f"{RUN_SCRIPTS}/checkpoints"}
    typed = f"cd {RUN_SCRIPTS}\n{SEED_COMMAND.format(ranks=2, epochs=1)}\n"
    with container(store, name("training"), tmp_path, ["/bin/bash"], volumes) as box:
        done = box.run(typed, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = re.findall(r"^TCAPPDLL .* rank : 0 train\.loss : [\d.]+ train\.ips : [\d.]+ imgs/s$", done.stdout, re.M)
    assert lines, done.stdout
    (model,) = checkpoints.glob("resnet18/*/model.onnx")
    assert model.stat().st_uid == USER


def test_in_a_base_with_conda_the_seeds_steps_lead_into_its_environment(
    conda_store: Store, tmp_path: Path, datasets: Path
) -> None:
    typed = f"""
conda activate torch_env
cd {RUN_SCRIPTS}
python -c 'import sys; print(sys.prefix)'
{SEED_COMMAND.format(ranks=1, epochs=1)} --step 2
"""
    with container(conda_store, CONDA_TRAINING, tmp_path, ["/bin/bash", "-i"], {datasets: "/datasets"}) as box:
        done = box.run(typed, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/root/miniconda3/envs/torch_env" in done.stdout.splitlines()
    assert "TCAPPDLL " in done.stdout


def test_a_command_that_activates_nothing_uses_the_conda_environment_too(conda_store: Store, tmp_path: Path) -> None:
    command = ["python", "-c", "import os, sys, torch; print(os.path.realpath(sys.prefix))"]
    with container(conda_store, CONDA_TRAINING, tmp_path, command) as box:
        assert box.run().stdout.split() == ["/root/miniconda3/envs/torch_env"]


def test_pid_1_is_tini_and_leaves_no_zombie(store: Store, tmp_path: Path) -> None:
    with container(store, name("training"), tmp_path, ["python", "-c", ORPHAN]) as box:
        done = box.run()
    assert done.stdout.split(maxsplit=1)[0] == "tini", done.stderr
    assert "Z" not in done.stdout
    assert done.stdout.count("'") == 4, "only tini and the script are left"


def test_sigterm_to_pid_1_ends_the_training_with_143_and_a_checkpoint(
    store: Store, tmp_path: Path, datasets: Path, checkpoints: Path
) -> None:
    command = SEED_COMMAND.format(ranks=2, epochs=50).split()
    volumes = {datasets: "/datasets", checkpoints: f"{RUN_SCRIPTS}/checkpoints"}
    log = tmp_path / "log"
    with container(store, name("training"), tmp_path, command, volumes) as box:
        process = box.start(log)
        while "TCAPPDLL " not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        box.signal("TERM")
        assert process.wait(120) == ExitCode.STOPPED, log.read_text()
    assert list(checkpoints.glob("resnet18/1/step-*/MANIFEST.json")), log.read_text()


def test_an_image_holds_what_it_runs_and_nothing_else_of_the_repository(store: Store) -> None:
    with store.container(name("training")) as (_, root):
        assert {path.name for path in (root / "opt/resnet").iterdir()} == {
            "app", "environment", "pyproject.toml", "requirements",
        }  # fmt: skip
    with store.container(name("operator")) as (_, root):
        assert {path.name for path in (root / "opt/resnet").iterdir()} == {
            "app", "controller", "manifests", "pyproject.toml", "requirements",
        }  # fmt: skip
        assert not list((root / "opt/resnet").rglob("__pycache__"))


def test_the_operators_image_starts_the_operator(store: Store, tmp_path: Path) -> None:
    with container(store, name("operator"), tmp_path, ["--help"]) as box:
        done = box.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python -m controller ")


def test_the_operators_image_has_resnetctl_too_whose_jobs_are_of_the_training_image(
    store: Store, tmp_path: Path
) -> None:
    command = ["render", "--standalone", "--file", "/examples/digits.yaml"]
    resnetctl = ["python3", "-m", "controller.cli"]
    volumes = {REPOSITORY / "examples": "/examples"}
    with container(store, name("operator"), tmp_path, command, volumes, entrypoint=resnetctl) as box:
        done = box.run()
    assert done.returncode == 0, done.stderr
    job = yaml.safe_load(done.stdout)
    (pod,) = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    assert (job["kind"], pod["image"]) == ("PyTorchJob", name("training"))

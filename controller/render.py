"""Experiment -> the job of an attempt, through the template of its target in manifests/templates.

What all targets have in common of job, pod and container is in templates that theirs include.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from jinja2 import FileSystemLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.command_line import to_args
from app.version import version
from controller.api import API_VERSION, KIND, Experiment, Spec, SpecError, Volume, dataset_path, train_config
from controller.targets import DEFAULT, TARGETS, Target

TEMPLATES = Path(__file__).parent / "templates"  # a link to manifests/templates in a checkout, its files in a wheel
STANDALONE_DEADLINE_SECONDS = 7 * 86_400
"""activeDeadlineSeconds of a standalone job whose experiment names none: without a controller it must end somehow."""
TRAINING_RUNTIME = "resnet-operator"
"""The ClusterTrainingRuntime that manifests/trainer installs, and the chart under its usual name."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is several times as fast
STANDALONE_NOTE = (
    "without the controller nobody restarts the whole job after a fault, notices a stall or a dead node, reports "
    "progress, or keeps the deadline on time; training-operator restarts single pods (restartPolicy ExitCode)"
)


def default_image() -> str:
    """The training image that `make image` builds."""
    return f"localhost/resnet-operator-training:{version()}"


def job_name(experiment: Experiment, attempt: int) -> str:
    """Name of the job of an attempt."""
    return f"{experiment.metadata.name}-{attempt}"


def target_of(experiment: Experiment) -> Target:
    """The kind of job that its attempts are."""
    return TARGETS[experiment.spec.target]


def pod_names(experiment: Experiment, attempt: int) -> list[str] | None:
    """Names that the pods of an attempt have, in the order of their index; None: nobody knows them beforehand."""
    return target_of(experiment).pod_names(job_name(experiment, attempt), experiment.spec.nodes)


def render_job(
    experiment: Experiment,
    attempt: int,
    *,
    training_image: str,
    training_runtime: str = TRAINING_RUNTIME,
    avoid_node: str | None = None,
    standalone: bool = False,
) -> dict[str, Any]:
    """The job of one attempt, of the kind that spec.target names.

    Args:
        experiment: validated; its uid, if it has one, becomes the owner reference.
        attempt: number of the attempt, from 1.
        training_image: used where the spec names no image.
        training_runtime: the ClusterTrainingRuntime of a TrainJob.
        avoid_node: node whose device failed; the pods prefer others.
        standalone: to be applied where no controller of ours runs.

    Raises:
        SpecError: standalone, and the target can't restart pods by their exit code.
    """
    text = render_text(
        experiment,
        attempt,
        training_image=training_image,
        training_runtime=training_runtime,
        avoid_node=avoid_node,
        standalone=standalone,
    )
    job: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506 - both loaders are the safe one
    return job


def render_text(
    experiment: Experiment,
    attempt: int,
    *,
    training_image: str,
    training_runtime: str = TRAINING_RUNTIME,
    avoid_node: str | None = None,
    standalone: bool = False,
) -> str:
    """As `render_job`, as YAML whose strings are all quoted: no reader of YAML takes one for a number."""
    spec, metadata = experiment.spec, experiment.metadata
    job, target = job_name(experiment, attempt), target_of(experiment)
    if standalone and target.kind != DEFAULT:
        raise SpecError(
            metadata.name, [f"spec.target: --standalone needs {DEFAULT}, whose pods restart by their exit code"]
        )
    return _TEMPLATES[target.kind].render(
        job=job,
        namespace=metadata.namespace,
        experiment=metadata.name,
        attempt=str(attempt),
        uid="" if standalone else metadata.uid or "",
        owner={"apiVersion": API_VERSION, "kind": KIND},
        standalone=standalone,
        deadline_seconds=spec.active_deadline_seconds or STANDALONE_DEADLINE_SECONDS,
        spec=spec,
        pod=spec.pod_template,
        image=spec.image or training_image,
        training_runtime=training_runtime,
        index_label=target.index_label,
        args=to_args(train_config(experiment)),
        resources=_resources(spec),
        tolerations=[t.model_dump(by_alias=True, exclude_none=True) for t in spec.pod_template.tolerations],
        # The kubelet expands $(NAME) in values: $$ is how it is told a plain $.
        env={e.name: e.value.replace("$", "$$") for e in spec.pod_template.env},
        avoid_node=avoid_node,
        mounts=_mounts(spec),
    )


def quoted(value: Any) -> str:
    """A value as YAML on one line: strings double-quoted and pure ASCII, lists and mappings in flow style.

    Raises:
        TypeError: the value is none of str, bool, int, list and dict: the template is wrong.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{"".join(_escaped(c) for c in value)}"'
    if isinstance(value, list):
        return f"[{', '.join(quoted(v) for v in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{quoted(k)}: {quoted(v)}' for k, v in value.items())}}}"
    raise TypeError(f"the template puts out {value}")  # an undefined value raises UndefinedError here: it has no text


def _escaped(character: str) -> str:
    # Not json.dumps: it writes characters beyond U+FFFF as two surrogates, which YAML does not put together again.
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    return f"\\u{ord(character):04x}" if ord(character) <= 0xFFFF else f"\\U{ord(character):08x}"


def _resources(spec: Spec) -> dict[str, dict[str, Any]]:
    """Requests and limits of the container: the user's, and the devices (Kubernetes wants both to be equal)."""
    given = spec.pod_template.resources
    devices = (
        {spec.accelerator.resource_name: spec.accelerator.resource_count} if spec.accelerator.resource_name else {}
    )
    both = {"requests": {**given.requests, **devices}, "limits": {**given.limits, **devices}}
    return {name: amounts for name, amounts in both.items() if amounts}


def _mounts(spec: Spec) -> list[dict[str, Any]]:
    """Volumes besides the pod's own ones, each with its mount path."""
    empty = Volume.model_validate({"emptyDir": {}})
    dataset = spec.dataset.volume or (empty if spec.dataset.name == "digits" else None)
    wanted = [
        ("dataset", dataset, dataset_path(spec)),
        ("checkpoints", spec.checkpoint.volume or empty, spec.checkpoint.path),
    ]
    return [
        {
            "name": name,
            "path": path,
            "read_only": bool(volume.persistent_volume_claim and volume.persistent_volume_claim.read_only),
            "source": volume.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True),
        }
        for name, volume, path in wanted
        if volume is not None
    ]


# finalize quotes every value that the template puts out, whether its author thought of it or not.
_ENVIRONMENT = ImmutableSandboxedEnvironment(
    loader=FileSystemLoader(TEMPLATES),
    undefined=StrictUndefined,
    finalize=quoted,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES = {kind: _ENVIRONMENT.get_template(target.template) for kind, target in TARGETS.items()}

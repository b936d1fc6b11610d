"""What two fields say together and must not, as rules of the API server (CEL). PURE.

These are the checks of `pod`, `experiment.rules` and app.config.check once more, in the language in which the API
server refuses at once what the controller could only refuse later; a test holds both against the same bad specs.
Messages don't name the field that the rule stands on: the API server puts its path in front.
"""

from __future__ import annotations

from app.config import OPTIONS, type_of
from app.data.datasets import DATASETS
from controller.api.base import NAME, WORDS
from controller.api.experiment import DIGITS_PATH, POD_PATHS
from controller.api.pod import RESERVED_ENV, RESERVED_PREFIXES, Ports
from controller.api.spec import DEVICES_PER_CARD, RESOURCE_NAMES
from controller.api.training import SPEC_OPTIONS
from controller.targets.trainjob import GRACE_SECONDS, POLICY

Rule = tuple[str, str]
"""A CEL expression that must hold, and what is told where it does not."""

_IMMUTABLE = ("model", "accelerator", "nodes", "dataset", "training")
_LEAST_MINUTES = float(OPTIONS["checkpoint_minutes"][0].low or 0)
_MOST_DEVICES = f"{OPTIONS['nproc_per_node'][0].high:.0f}"


def _text(value: str) -> str:
    """A text as CEL writes it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _list(words: object) -> str:
    return f"[{', '.join(_text(str(word)) for word in words)}]"  # type: ignore[attr-defined]


def _parts(path: str) -> str:
    """The folders of a path, so that slashes too many make no difference."""
    return f"{path}.split('/').filter(p, p != '')"


def _reserved_path(path: str) -> str:
    owned = ", ".join(f"[{', '.join(_text(part) for part in each.split('/') if part)}]" for each in POD_PATHS)
    return f"!({_parts(path)} in [[], {owned}]) && !('..' in {path}.split('/'))"


def key_rules(pattern: str, longest: int) -> tuple[Rule, ...]:
    """The rules of a map whose keys have a pattern."""
    return ((f"self.all(key, key.size() <= {longest} && key.matches({_text(pattern)}))", f"a key {WORDS[pattern]}"),)


def _range_rules() -> tuple[Rule, ...]:
    """What `minimum` can't say of an option: a value besides the range that means off (-1, 0), and a lower bound that
    is no whole number, which the API server rounds down where a whole number is given."""
    found = []
    for name, alias in SPEC_OPTIONS.items():
        option, _ = OPTIONS[name]
        whole = type_of(name) is int
        low, off = (None if x is None else f"{x:.0f}" if whole else repr(float(x)) for x in (option.low, option.off))
        if low is None or option.low is None or (whole and (option.off is None or option.off + 1 >= option.low)):
            continue
        if off is None and float(option.low).is_integer():
            continue
        rule = f"self.{alias} >= {low}" if off is None else f"self.{alias} == {off} || self.{alias} >= {low}"
        besides = "" if off is None else f" (or {option.off_shown})"
        message = f"{alias} must be {option.low:.12g} to {option.high:.12g}{besides}"
        found.append((f"!has(self.{alias}) || {rule}", message))
    return tuple(found)


def _immutable() -> tuple[Rule, ...]:
    """On `spec`: a rule on the field itself would not be asked where the field is added or removed."""
    end = "can't be changed, since checkpoints are bound to it: create another experiment"
    fields = [f"self.{name} == oldSelf.{name}" for name in _IMMUTABLE]
    volume = (
        "has(self.checkpoint.volume) == has(oldSelf.checkpoint.volume) && "
        "(!has(self.checkpoint.volume) || self.checkpoint.volume == oldSelf.checkpoint.volume)"
    )
    return (
        *((rule, f"{name} {end}") for name, rule in zip(_IMMUTABLE, fields, strict=True)),
        ("self.checkpoint.path == oldSelf.checkpoint.path", f"checkpoint.path {end}"),
        (volume, f"checkpoint.volume {end}"),
        ("self.target == oldSelf.target", "target can't be changed: create another experiment"),
    )


def _trainjob() -> tuple[Rule, ...]:
    """What a TrainJob has no field for: the same as `targets.trainjob.TrainJob.cannot`."""
    ports = Ports().model_dump()
    given = " && ".join(f"self.podTemplate.ports.{name} == {port}" for name, port in ports.items())
    return (
        (
            f"self.target != 'TrainJob' || (!has(self.priorityClassName) && self.imagePullPolicy == {_text(POLICY)} && "
            f"!self.podTemplate.hostNetwork && !self.podTemplate.hostIPC && {given})",
            "target TrainJob has no field for priorityClassName, imagePullPolicy and podTemplate.hostNetwork, hostIPC "
            "and ports: leave them out, or use target PyTorchJob",
        ),
        (
            "self.target != 'TrainJob' || !has(self.queueName) || "
            f"self.podTemplate.terminationGracePeriodSeconds <= {GRACE_SECONDS}",
            f"podTemplate.terminationGracePeriodSeconds must be at most {GRACE_SECONDS} with queueName and target "
            "TrainJob, or use target PyTorchJob",
        ),
    )


_NEED_PATH = _list(name for name, facts in DATASETS.items() if facts.needs_path)
_DATASET_PATH = (
    f"(has(self.dataset.path) ? self.dataset.path : self.dataset.name == 'digits' ? {_text(DIGITS_PATH)} : '')"
)
_DEVICES_PER_CARD = " : ".join(
    f"self.type == {_text(kind)} ? {count}" for kind, count in DEVICES_PER_CARD.items() if count != 1
)
_RESOURCE_NAME = "has(self.accelerator.resourceName) ? self.accelerator.resourceName : " + " : ".join(
    [*(f"self.accelerator.type == {_text(k)} ? {_text(v)}" for k, v in RESOURCE_NAMES.items() if v), "''"]
)
_OWN_DIRECTORY = "the pod has its own directory there"

RULES: dict[str, tuple[Rule, ...]] = {
    "Experiment": ((f"self.metadata.name.matches({_text(NAME)})", f"metadata.name {WORDS[NAME]}"),),
    "Spec": (
        *_immutable(),
        *_trainjob(),
        (
            f"{_parts(_DATASET_PATH)} != {_parts('self.checkpoint.path')}",
            "checkpoint.path is where the data set lies: name another",
        ),
        (
            f"!(({_RESOURCE_NAME}) in self.podTemplate.resources.requests) && "
            f"!(({_RESOURCE_NAME}) in self.podTemplate.resources.limits)",
            "podTemplate.resources names the resource that accelerator counts: leave it out",
        ),
    ),
    "Accelerator": (
        (
            f"self.cardsPerNode * (has(self.devicesPerCard) ? self.devicesPerCard : {_DEVICES_PER_CARD} : 1)"
            f" <= {_MOST_DEVICES}",
            f"asks for too many devices per node: at most {_MOST_DEVICES} are started",
        ),
    ),
    "Dataset": (
        (f"!(self.name in {_NEED_PATH}) || has(self.path)", "path is required: the folder with train/ and val/"),
        (
            "self.name != 'synthetic' || (!has(self.path) && !has(self.volume))",
            "needs no path and no volume with synthetic: leave them out",
        ),
        (f"!has(self.path) || ({_reserved_path('self.path')})", f"path can't be that: {_OWN_DIRECTORY}"),
    ),
    "Checkpoint": (
        (f"self.everyMinutes >= {_LEAST_MINUTES!r}", f"everyMinutes must be at least {_LEAST_MINUTES:g}"),
        (_reserved_path("self.path"), f"path can't be that: {_OWN_DIRECTORY}"),
        (
            "!has(self.volume) || !has(self.volume.persistentVolumeClaim) || "
            "!self.volume.persistentVolumeClaim.readOnly",
            "volume.persistentVolumeClaim.readOnly must be false: checkpoints are written",
        ),
    ),
    "Training": (
        *_range_rules(),
        ("self.imageSize % 2 == 0", "imageSize must be even"),
        (
            "self.lossScale == 0.0 || !self.gradScale",
            "lossScale is a static scale and gradScale a dynamic one: give one of them",
        ),
        (
            "!self.mlperfMode || self.optimizer == 'sgd'",
            "mlperfMode trains with LARS, not with optimizer: leave the optimizer out",
        ),
        (
            "self.pretrained == '' || self.pretrained.startsWith('/')",
            "pretrained must be the whole path inside the pod, /…",
        ),
    ),
    "Volume": (
        (
            "has(self.persistentVolumeClaim) != has(self.emptyDir)",
            "needs exactly one of persistentVolumeClaim and emptyDir",
        ),
    ),
    "Toleration": (
        ("self.operator != 'Exists' || !has(self.value) || self.value == ''", "operator Exists takes no value"),
        ("self.operator != 'Equal' || has(self.key)", "operator Equal needs a key"),
        (
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds needs effect NoExecute",
        ),
    ),
    "Ports": (
        (
            "self.master != self.metrics && self.master != self.gang && self.metrics != self.gang",
            "needs three different ports for master, metrics and gang",
        ),
    ),
    "EnvVar": (
        (
            f"!(self.name in {_list(sorted(RESERVED_ENV))}) && "
            + " && ".join(f"!self.name.startsWith({_text(prefix)})" for prefix in RESERVED_PREFIXES),
            "the pod template sets this variable itself: leave it out",
        ),
    ),
}
"""Type -> its rules."""

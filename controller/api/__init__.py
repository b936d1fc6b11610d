"""The ResNetExperiment API: its types, and reading one from YAML.

CRD schema, chart schema and field docs are generated from these types.
"""

from controller.api.base import API_VERSION, GROUP, KIND, LABEL_ATTEMPT, LABEL_EXPERIMENT, VERSION
from controller.api.errors import SpecError
from controller.api.experiment import Experiment, Metadata, dataset_path, train_config
from controller.api.pod import EnvVar, PodTemplate, Ports, Volume
from controller.api.reading import from_document, load, load_file
from controller.api.spec import Accelerator, Checkpoint, Dataset, FaultTolerance, Spec
from controller.api.status import Condition, ConditionType, Ending, HistoryEntry, LastVerdict, Phase, Status
from controller.api.training import Training

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "LABEL_ATTEMPT",
    "LABEL_EXPERIMENT",
    "VERSION",
    "Accelerator",
    "Checkpoint",
    "Condition",
    "ConditionType",
    "Dataset",
    "Ending",
    "EnvVar",
    "Experiment",
    "FaultTolerance",
    "HistoryEntry",
    "LastVerdict",
    "Metadata",
    "Phase",
    "PodTemplate",
    "Ports",
    "Spec",
    "SpecError",
    "Status",
    "Training",
    "Volume",
    "dataset_path",
    "from_document",
    "load",
    "load_file",
    "train_config",
]

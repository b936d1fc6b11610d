"""The CustomResourceDefinition of ResNetExperiment: `python -m controller.crd` prints it, `make docs` writes it."""

from __future__ import annotations

import sys
from typing import Any

import yaml

from controller.api.base import GROUP, KIND, VERSION
from controller.api.schema import structural_schema

PLURAL = "resnetexperiments"
FILE = f"{PLURAL}.{GROUP}.yaml"
"""Its name in manifests/crd."""
_HEAD = "# Made from controller/api by `make docs`; a test fails where it is not current.\n"
COLUMNS = (
    ("Model", ".spec.model", "string", False),
    ("Devices", ".status.devices", "string", False),
    ("Phase", ".status.phase", "string", False),
    ("Epoch", ".status.progress", "string", False),
    ("Top1", ".status.top1Percent", "string", False),
    ("Img/s", ".status.imagesPerSecond", "number", False),
    ("ETA", ".status.eta", "string", False),
    ("Restarts", ".status.restarts", "integer", False),
    ("Loss", ".status.loss", "number", True),
    ("Best", ".status.bestTop1", "number", True),
    ("Job", ".status.jobName", "string", True),
    ("Message", ".status.message", "string", True),
    ("Age", ".metadata.creationTimestamp", "date", False),
)
"""Columns of `kubectl get` and `resnetctl list`: name, path, type, and whether only -o wide shows it."""


def definition() -> dict[str, Any]:
    """The definition, as the API server takes it."""
    columns = [
        {"name": name, "jsonPath": path, "type": kind} | ({"priority": 1} if wide else {})
        for name, path, kind, wide in COLUMNS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # `helm uninstall` leaves it, since every experiment would be deleted with it.
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["rnx"],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": structural_schema()},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Nothing is an alias."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def dump(content: Any) -> str:
    """The content as YAML in which every text stays on one line."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def text() -> str:
    """The file."""
    return _HEAD + dump(definition())


if __name__ == "__main__":
    sys.stdout.write(text())

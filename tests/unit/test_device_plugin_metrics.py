"""The device plugin's metrics: each device by name, and the table of the docs."""

from __future__ import annotations

import re
from pathlib import Path

from deviceplugin.devices import Rules, Seen, devices
from deviceplugin.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs" / "device-plugin.md"


def metrics() -> Metrics:
    """Of a node with a card, one device of which is gone."""
    found = devices(Seen().with_files(range(4)).with_files({0, 1, 3}), Rules())
    made = Metrics("tecorigin.com/tcaicard", lambda: found, lambda: True)
    made.allocated(aligned=True)
    return made


def test_each_device_is_named_with_its_card() -> None:
    values = {
        device: metrics().registry.get_sample_value(
            "resnet_device_plugin_device_healthy",
            {"resource": "tecorigin.com/tcaicard", "device": device, "card": "card0"},
        )
        for device in ("tcaicard0", "tcaicard1", "tcaicard2", "tcaicard3")
    }
    assert values == {"tcaicard0": 1.0, "tcaicard1": 1.0, "tcaicard2": 0.0, "tcaicard3": 1.0}


def test_the_docs_list_every_metric_with_its_labels() -> None:
    listed = re.findall(r"^\| `(resnet_device_plugin_\w+)` \| ([\w, ]+) \|", DOCS.read_text(), re.MULTILINE)
    samples = {
        sample.name: sorted(sample.labels) for family in metrics().registry.collect() for sample in family.samples
    }
    assert {name: sorted(labels.split(", ")) for name, labels in listed} == samples

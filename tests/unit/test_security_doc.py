"""docs/security.md has the rights that are installed."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_table_of_rights_is_that_of_the_manifests() -> None:
    documents = list(yaml.safe_load_all((ROOT / "manifests" / "install" / "rbac.yaml").read_text()))
    installed = {
        (group or "core", resource, tuple(rule["verbs"]))
        for each in documents
        if each["kind"] in ("ClusterRole", "Role")
        for rule in each["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    text = (ROOT / "docs" / "security.md").read_text()
    _, _, after = text.partition("| API group | resource | verbs | why |\n")
    lines = after.partition("\n\n")[0].splitlines()[1:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    told = {(group, resource, tuple(verbs.split(", "))) for group, resource, verbs, _ in rows}
    assert told == installed

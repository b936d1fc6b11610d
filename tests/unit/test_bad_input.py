"""Every bad experiment is one clear line: the file, the field, what was wrong, what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api import SpecError, load, load_file

GOOD = """\
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: good}
spec:
  model: resnet50
  accelerator: {type: sdaa, cardsPerNode: 4}
  nodes: 2
  dataset: {name: imagenet, path: /data, volume: {persistentVolumeClaim: {claimName: imagenet}}}
  training: {epochs: 50, batchSizePerDevice: 64}
"""


def problem(text: str | bytes) -> str:
    with pytest.raises(SpecError) as caught:
        load(text, "x.yaml")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("x.yaml: ")
    assert caught.value.code == 64
    return line.removeprefix("x.yaml: ")


def test_the_good_one_is_good() -> None:
    assert load(GOOD, "x.yaml").metadata.name == "good"


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        # unknown and missing fields
        ("epochs: 50", "epoch: 50", "spec.training.epoch: unknown field (did you mean 'epochs'?)"),
        ("epochs: 50", "warmup_epochs: 5", "spec.training.warmup_epochs: unknown field (did you mean 'warmupEpochs'?)"),
        ("cardsPerNode: 4", "cards_per_node: 4", "unknown field (did you mean 'cardsPerNode'?)"),
        ("nodes: 2", "zzz: 2", "spec.zzz: unknown field; known here: model, accelerator, nodes, dataset"),
        ("claimName: imagenet", "claim: imagenet, claimName: c", "claim: unknown field (did you mean 'claimName'?)"),
        ("{name: good}", "{name: good, lables: {}}", "metadata.lables: unknown field (did you mean 'labels'?)"),
        ("  model: resnet50\n", "", "spec.model: is required: network, one of resnet18, resnet34"),
        (", batchSizePerDevice: 64", "", "spec.training.batchSizePerDevice: is required: images per step"),
        ("claimName: imagenet", "", "spec.dataset.volume.persistentVolumeClaim.claimName: is required"),
        ("type: sdaa, ", "", "type: is required: device family, one of sdaa, cuda, cpu"),
        ("epochs: 50", "lr: 0.1", "spec.training.lr: unknown field (did you mean 'learningRate'?)"),
        ("epochs: 50", "device: cpu", "unknown field (did you mean 'spec.accelerator.type'?)"),
        ("nodes: 2", "epochs: 2", "spec.epochs: unknown field (did you mean 'spec.training.epochs'?)"),
        ("nodes: 2", "nnode: 2", "spec.nnode: unknown field (did you mean 'nodes'?)"),
        ("nodes: 2", "nodes:", "spec.nodes: is empty: give a value or leave it out"),
        # wrong types: nothing is coerced
        ("epochs: 50", "epochs: '50'", "spec.training.epochs: must be a whole number, not '50': write 50"),
        ("epochs: 50", "epochs: 1e3", "spec.training.epochs: must be a whole number, not '1e3': write 1000"),
        ("epochs: 50", "epochs: 5.0", "spec.training.epochs: must be a whole number, not 5.0: write 5"),
        ("epochs: 50", "epochs: true", "spec.training.epochs: must be a whole number, not true"),
        ("epochs: 50", "epochs: 1:30", "spec.training.epochs: must be a whole number, not '1:30'"),
        ("epochs: 50", "epochs: 017", "spec.training.epochs: must be a whole number, not '017'"),
        ("epochs: 50", "epochs: [50]", "spec.training.epochs: must be a whole number, not a list"),
        ("epochs: 50", "learningRate: 1e-3", "spec.training.learningRate: must be a number, not '1e-3': write 0.001"),
        ("epochs: 50", "autocast: 1", "spec.training.autocast: must be true or false, not 1"),
        ("epochs: 50", "autocast: 'true'", "spec.training.autocast: must be true or false, not 'true'"),
        ("model: resnet50", "model: no", "spec.model: must be text, not false: put it in quotes"),
        ("name: good", "name: on", "metadata.name: must be text, not true: put it in quotes"),
        ("name: good", "name: 123", "metadata.name: must be text, not 123: put it in quotes"),
        ("{type: sdaa, cardsPerNode: 4}", "sdaa", "spec.accelerator: must be a mapping, not 'sdaa'"),
        ("nodes: 2", "podTemplate: {tolerations: {}}", "spec.podTemplate.tolerations: must be a list, not a mapping"),
        ("nodes: 2", "podTemplate: {nodeSelector: {a: no}}", "nodeSelector.a: must be text, not false"),
        ("nodes: 2", "podTemplate: {resources: {limits: {cpu: 4}}}", "limits.cpu: must be text, not 4: put it in"),
        # out of range
        ("epochs: 50", "epochs: 0", "spec.training.epochs: must be 1 to 100000, not 0"),
        ("epochs: 50", "warmupEpochs: -2", "spec.training.warmupEpochs: must be 0 to 100000 (or -1), not -2"),
        ("epochs: 50", "seed: -1", "spec.training.seed: must be 0 to 2147483647, not -1"),
        ("epochs: 50", "learningRate: .nan", "spec.training.learningRate: must be a finite number, not nan"),
        ("epochs: 50", "learningRate: .inf", "spec.training.learningRate: must be a finite number, not inf"),
        ("epochs: 50", "learningRate: 0", "spec.training.learningRate: must be 1e-09 to 1000, not 0"),
        ("nodes: 2", "nodes: 0", "spec.nodes: must be 1 to 4096, not 0"),
        ("cardsPerNode: 4", "cardsPerNode: 65", "spec.accelerator.cardsPerNode: must be 1 to 64, not 65"),
        ("cardsPerNode: 4", "cardsPerNode: 64, devicesPerCard: 8", "spec.accelerator: asks for 512 devices per node"),
        ("nodes: 2", "checkpoint: {keep: 0}", "spec.checkpoint.keep: must be 1 to 1000, not 0"),
        ("nodes: 2", "faultTolerance: {maxRestarts: -1}", "maxRestarts: must be 0 to 1000, not -1"),
        ("nodes: 2", "podTemplate: {ports: {master: 80}}", "ports.master: must be 1024 to 65535, not 80"),
        ("nodes: 2", "podTemplate: {securityContext: {runAsUser: 0}}", "runAsUser: must be 1 to 2147483647, not 0"),
        # words
        ("resnet50", "resnet52", "spec.model: 'resnet52' is not one of resnet18, resnet34, resnet50, resnet101"),
        ("resnet50", "resnet500", "(did you mean 'resnet50'?)"),
        ("type: sdaa", "type: sdda", "spec.accelerator.type: 'sdda' is not one of sdaa, cuda, cpu (did you mean"),
        ("name: imagenet,", "name: ImageNet,", "spec.dataset.name: 'ImageNet' is not one of imagenet, cifar10"),
        ("epochs: 50", "optimizer: sdg", "spec.training.optimizer: 'sdg' is not one of sgd, rmsprop, adam (did you"),
        ("nodes: 2", "imagePullPolicy: always", "imagePullPolicy: 'always' is not one of Always, IfNotPresent"),
        # names and other texts
        ("name: good", "name: Good", "metadata.name: must be 1 to 40 lower-case letters, digits and '-'"),
        ("name: good", "name: good-", "metadata.name: must be 1 to 40"),
        ("name: good", "name: 4cards", "metadata.name: must be 1 to 40"),
        ("name: good", "name: a.b", "metadata.name: must be 1 to 40"),
        ("name: good", f"name: a{'b' * 40}", "metadata.name: must be at most 40 characters, not 41"),
        ("name: good", "name: ''", "metadata.name: must be 1 to 40"),
        ("name: good", 'name: "good\\n"', "metadata.name: must be 1 to 40"),
        ("path: /data", "path: data", "spec.dataset.path: must be an absolute path"),
        ("path: /data", 'path: "/da\\nta"', "spec.dataset.path: must be an absolute path"),
        ("path: /data", "path: /data/$(HOME)", "spec.dataset.path: must be an absolute path"),
        ("path: /data", "path: /data/../etc", "spec.dataset.path: can't be /data/../etc"),
        ("path: /data", "path: /tmp", "spec.dataset.path: can't be /tmp: the pod has its own directory there"),
        ("claimName: imagenet", "claimName: '{{ 7*7 }}'", "claimName: must be lower-case letters, digits"),
        ("nodes: 2", "image: 'a b'", "spec.image: must be an image reference"),
        ("nodes: 2", 'image: "a\\ud800"', "spec.image: holds half a character"),
        ("nodes: 2", "podTemplate: {sharedMemory: 8GB}", "sharedMemory: must be a quantity such as"),
        ("nodes: 2", 'podTemplate: {env: [{name: A, value: "a\\0"}]}', "env[0].value: must not hold a NUL character"),
        ("nodes: 2", "podTemplate: {env: [{name: 1a}]}", "env[0].name: must be a variable's name"),
        # what two fields say together
        ("path: /data, ", "", "spec.dataset.path: is required with imagenet: the folder with train/ and val/"),
        ("name: imagenet,", "name: synthetic,", "spec.dataset: needs no path and no volume with synthetic"),
        ("nodes: 2", "checkpoint: {path: /data/}", "spec.checkpoint.path: is /data/, where the data set lies"),
        ("nodes: 2", "checkpoint: {volume: {}}", "spec.checkpoint.volume: needs exactly one of persistentVolumeClaim"),
        (
            "nodes: 2",
            "checkpoint: {volume: {persistentVolumeClaim: {claimName: c, readOnly: true}}}",
            "spec.checkpoint.volume.persistentVolumeClaim.readOnly: must be false: checkpoints are written",
        ),
        (
            "nodes: 2",
            "podTemplate: {resources: {limits: {tecorigin.com/tcaicard: '1'}}}",
            "spec.podTemplate.resources: names tecorigin.com/tcaicard, which spec.accelerator counts",
        ),
        ("nodes: 2", "podTemplate: {ports: {master: 9401}}", "spec.podTemplate.ports: needs three different ports"),
        ("nodes: 2", "podTemplate: {env: [{name: RANK, value: '1'}]}", "env[0]: sets RANK, which the pod template"),
        ("nodes: 2", "podTemplate: {env: [{name: A}, {name: A}]}", "spec.podTemplate: env sets A more than once"),
        ("nodes: 2", "podTemplate: {tolerations: [{operator: Equal}]}", "tolerations[0]: needs a key"),
        (
            "epochs: 50",
            "gradScale: true, lossScale: 128.0",
            "spec.training.lossScale: is a static scale and spec.training.gradScale True a dynamic one",
        ),
        ("epochs: 50", "mlperfMode: true, optimizer: adam", "spec.training.optimizer: is adam, but spec.training.ml"),
        ("epochs: 50", "pretrained: r50.pth", "spec.training.pretrained: is r50.pth: must be the whole path inside"),
        # another kind of object
        ("v1alpha1", "v1", "apiVersion: must be resnet-operator.io/v1alpha1, not 'resnet-operator.io/v1'"),
        ("ResNetExperiment", "Pod", "kind: must be ResNetExperiment, not 'Pod'"),
        ("kind: ResNetExperiment\n", "", "kind: must be ResNetExperiment, and is missing"),
        # YAML
        ("nodes: 2", "nodes: 2\n  nodes: 3", "line 8, column 3: the key 'nodes' is given twice"),
        ("nodes: 2", "nodes: !!int '2'", "line 7, column 10: the tag !!int is not read: write a plain value"),
        ("nodes: 2", "image: &a x\n  priorityClassName: *a", "line 8, column 22: the alias *a is not read"),
        ("nodes: 2", "1: 2", "line 7, column 3: the key 1 must be text"),
        ("nodes: 2", "nodes: {2", "no valid YAML: "),
        ("nodes: 2", "nodes: 2\n---\nkind: Pod", "line"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_one_line_that_names_it(old: str, new: str, line: str) -> None:
    assert old in GOOD
    assert line in problem(GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "is empty: a ResNetExperiment is expected"),
        ("# nothing\n", "is empty: a ResNetExperiment is expected"),
        ("- a\n", "must be a mapping with apiVersion, kind, metadata and spec, not a list"),
        ("hello", "must be a mapping with apiVersion, kind, metadata and spec, not 'hello'"),
        ("null", "is empty: a ResNetExperiment is expected"),
        ("---\n---\n", "is empty: a ResNetExperiment is expected"),
        (GOOD.partition("spec:")[0], "spec: is required: what is wanted"),
        (b"\x7fELF\x02\x01\x00\xff", "is no UTF-8 text (byte 7): a YAML file is expected"),
        (b"a: \x00", "no valid YAML: "),
        (GOOD.encode("utf-16"), "is no UTF-8 text (byte 0)"),
        ("!!python/object/apply:os.system [id]", "the tag !!python/object/apply:os.system is not read"),
        ("a: !!python/object:object {}", "the tag !!python/object:object is not read"),
        (f"{GOOD}---\n{GOOD}", "holds 2 documents: put each experiment into a file of its own"),
        ("[" * 5000, "is nested deeper than 32 levels"),
        ("{a: " * 5000, "is nested deeper than 32 levels"),
        ("a: &a [x]\nb: [*a, *a]", "line 2, column 5: the alias *a is not read: write the value out"),
        ("a: " + "x" * 300_000, "is larger than 256 KiB: no experiment needs that"),
        ("a: " + "9" * 5000, "apiVersion: must be resnet-operator.io/v1alpha1, and is missing"),
        ("a: 2024-99-99", "apiVersion: must be"),
        ("a: 'x", "line 1, column 6: no valid YAML: "),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_file_that_is_no_experiment_is_one_line(text: str | bytes, line: str) -> None:
    assert line in problem(text)


@pytest.mark.parametrize("value", ["5.5", "'5.5'", "1" + "0" * 30, "inf"])
def test_no_number_is_proposed_that_would_be_refused_as_well(value: str) -> None:
    line = problem(GOOD.replace("epochs: 50", f"epochs: {value}"))
    assert "spec.training.epochs: must be a whole number, not " in line
    assert "write" not in line


def test_an_empty_document_at_either_end_is_no_second_experiment() -> None:
    assert load(f"---\n{GOOD}---\n", "x.yaml") == load(GOOD, "x.yaml")


def test_several_problems_are_one_line_each() -> None:
    with pytest.raises(SpecError) as caught:
        load(GOOD.replace("epochs: 50", "epochs: 0, foo: 1").replace("sdaa", "tpu"), "x.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems) == 3
    assert all(line.startswith("x.yaml: spec.") for line in lines)


def test_a_missing_file_and_a_directory_have_a_code_of_their_own(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SpecError, match="can't be read: ") as caught:
            load_file(path)
        assert caught.value.code == 66


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_no_text_at_all_makes_anything_but_a_clear_line(text: str | bytes) -> None:
    assert problem(text)


VALUES = st.recursive(
    st.sampled_from(["1", "-1", "no", "null", "x", "[]", "{}", "1e3", '"a\\n"', "~", "2024-01-01", "!!set {a}"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(["name", "path", "type", "no", '"\\n"']), inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{k}: {v}" for k, v in items.items()) + "}"
        )
    ),
    max_leaves=6,
)
PLACES = [
    "{type: sdaa, cardsPerNode: 4}",
    "{persistentVolumeClaim: {claimName: imagenet}}",
    "/data",
    "50",
    "{name: good}",
]


@given(VALUES, st.sampled_from(PLACES))
def test_any_value_in_any_place_is_refused_with_clear_lines_or_taken(value: str, place: str) -> None:
    text = GOOD.replace(place, value, 1)
    try:
        taken = load(text, "x.yaml")
    except SpecError as error:
        lines = str(error).splitlines()
    else:
        assert taken.kind == "ResNetExperiment"
        lines = []
    assert all(line.startswith("x.yaml: ") and line.isprintable() and len(line) < 600 for line in lines)


def test_a_long_or_unprintable_input_is_cut_and_escaped_in_the_message() -> None:
    line = problem(GOOD.replace("nodes: 2", f'"a\\nb{"x" * 900}": 2'))
    assert line.startswith("spec.a\\nbxxx")
    assert len(line) < 520

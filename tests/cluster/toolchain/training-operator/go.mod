// Pins the training-operator whose CRD the tests validate against. Read with tests/cluster/gomodule.py.
module resnet-operator/tests/training-operator

go 1.23

require github.com/kubeflow/training-operator v1.9.4

// The kinds of Prometheus Operator, read from its module: nothing of it is built.
module resnet-operator/tests/prometheus-operator

go 1.24.0

require github.com/prometheus-operator/prometheus-operator v0.85.0

// What the tests' smallest pods run: see main.go. The standard library is all it needs.
module resnet-operator/tests/probe

go 1.24.0

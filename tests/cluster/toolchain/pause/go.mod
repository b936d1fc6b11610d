// What every pod's sandbox runs, and the first process of every node: see main.go. The standard library is all it needs.
module resnet-operator/tests/pause

go 1.24.0

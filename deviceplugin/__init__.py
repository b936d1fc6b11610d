"""A Kubernetes device plugin: makes the accelerator devices of a node a resource that pods can ask for.

Pure: `devices` (what there is and how it is), `smi` (the vendor tool's table), `preference` (which devices go
together), `allocation` (what a container gets). Edges: `discovery` and `command` look at the node, `service` and
`registration` speak with the kubelet, `sockets` looks at its files, `events` writes Kubernetes Events, `metrics` serves
/metrics; `board` is what they share, and `plugin` ties them together.

It imports nothing of the controller: its image is its own.
"""

"""The local backend: carries out what `reconcile` decides with processes of this machine instead of pods.

`template` (pure) turns a pod template into a command as the kubelet would, `process` starts and ends it, `machine` is
the API server and the kubelets in one, `rundir` is the directory that outlives them, `loop` ties them to `reconcile`.
Linux only: processes are told apart by /proc.
"""


class LocalError(Exception):
    """A run that can't go on, in one line for a person.

    Args:
        message: what was wrong, where, and what would be right.
        code: the exit code of resnetctl.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code

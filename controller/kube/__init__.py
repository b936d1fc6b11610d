"""The Kubernetes edge: the only files that talk to the API. The official client reads kubeconfigs and keeps tokens
fresh; documents are plain dicts.

`client` asks and writes, `reflector` keeps a `store` of trimmed documents current, `queue` says which experiment is
looked at next, `executor` looks at one and carries out what `reconcile` decides, `progress` asks the pods, `recorder`
tells Events, `election` holds the Lease.
"""


class KubeError(Exception):
    """The cluster can't be used as asked, in one line for a person."""

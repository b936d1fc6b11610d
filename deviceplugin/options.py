"""The flags of `python -m deviceplugin`, read and checked."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.arguments import Parser, seconds, whole
from app.version import version
from deviceplugin.allocation import Extras, Mount
from deviceplugin.devices import DEFAULT_DEVICES_PER_CARD, Rules
from deviceplugin.sockets import MAX_PATH

PROGRAM = "python -m deviceplugin"
SOCKET_DIRECTORIES = {
    "plugins-registry": "/var/lib/kubelet/plugins_registry",
    "classic": "/var/lib/kubelet/device-plugins",
}
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_RESOURCE = re.compile(rf"{_LABEL}(\.{_LABEL})*/[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATH = re.compile(r"(/[^/\0\n]+)+")


@dataclass(frozen=True)
class Options:
    """What the plugin runs with. Times are seconds; a port of 0 is chosen by the system."""

    resource: str
    rules: Rules
    extras: Extras
    host_root: Path
    classic: bool
    socket_directory: Path
    health_command: tuple[str, ...]
    health_interval: float
    health_timeout: float
    poll: float
    retry: float
    silence: float
    node: str
    metrics_port: int
    verbose: bool

    @property
    def socket(self) -> Path:
        """Where it serves: one name for one resource, so that two plugins meet there."""
        return self.socket_directory / f"{self.resource.replace('/', '_')}.sock"


def parse(argv: Sequence[str]) -> Options:
    """The options of a command line; one that is wrong ends the process with 64 and one line."""
    parser = _parser()
    args = parser.parse_args(argv)
    options = Options(
        resource=args.resource,
        rules=Rules(
            args.device_path,
            args.count,
            args.devices_per_card,
            frozenset(args.unhealthy_words),
            asks_tool=bool(args.health_command),
        ),
        extras=Extras(args.permissions, args.visible_variable, args.visible_numbers, dict(args.env), tuple(args.mount)),
        host_root=Path(args.host_root),
        classic=args.registration == "classic",
        socket_directory=Path(args.socket_directory or SOCKET_DIRECTORIES[args.registration]),
        health_command=args.health_command,
        health_interval=args.health_interval,
        health_timeout=args.health_timeout,
        poll=args.poll_seconds,
        retry=args.retry_seconds,
        silence=args.silence_seconds,
        node=args.node_name,
        metrics_port=args.metrics_port,
        verbose=args.verbose,
    )
    if len(bytes(options.socket)) > MAX_PATH:
        parser.error(
            f"--socket-directory: {options.socket} is longer than {MAX_PATH} bytes, which no socket's path may be"
        )
    return options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Makes the accelerator devices of this node a resource that Kubernetes gives to pods.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"resnet-operator {version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    group = parser.add_argument_group("devices")
    group.add_argument(
        "--resource", type=_resource, default="tecorigin.com/tcaicard", metavar="NAME",
        help="what pods ask for [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--device-path", type=_path, default=Rules.path, metavar="PATH",
        help="of device N on the host, less the N [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--host-root", type=_root, default="/", metavar="DIR", help="where the host's paths begin here [default /]"
    )
    group.add_argument(
        "--count", choices=("device", "card"), default="device", help="what one of the resource is [default device]"
    )
    group.add_argument(
        "--devices-per-card", type=whole(1, 64), metavar="N",
        help=f"default: as the health command's table says, else {DEFAULT_DEVICES_PER_CARD}",
    )  # fmt: skip
    group = parser.add_argument_group("containers")
    group.add_argument(
        "--permissions", type=_permissions, default=Extras.permissions, metavar="RWM",
        help="of the device nodes [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--visible-variable", type=_variable, default=Extras.visible, metavar="NAME",
        help='gets the indices of the devices; "" for none [default %(default)s]',
    )  # fmt: skip
    group.add_argument(
        "--visible-numbers", choices=("container", "host"), default=Extras.numbering,
        help="indices from 0 among the container's devices, or the host's [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--env", action="append", default=[], type=_env, metavar="NAME=VALUE", help="a variable for every container"
    )
    group.add_argument(
        "--mount", action="append", default=[], type=_mount, metavar="HOST:CONTAINER[:rw]",
        help="a mount for every container, read-only unless :rw",
    )  # fmt: skip
    group = parser.add_argument_group("health")
    group.add_argument(
        "--health-command", type=_command, default=(), metavar="COMMAND",
        help="prints a table as teco-smi does; run without a shell",
    )  # fmt: skip
    group.add_argument(
        "--health-interval", type=seconds, default=30.0, metavar="S", help="run it so often [default %(default)s]"
    )
    group.add_argument(
        "--health-timeout", type=seconds, default=10.0, metavar="S", help="for so long at most [default %(default)s]"
    )
    group.add_argument(
        "--unhealthy-words", type=_words, default=sorted(Rules.bad_words), metavar="A,B",
        help=f"of its health column, that make a device unhealthy [default {','.join(sorted(Rules.bad_words))}]",
    )  # fmt: skip
    group = parser.add_argument_group("kubelet")
    group.add_argument(
        "--registration", choices=tuple(SOCKET_DIRECTORIES), default="plugins-registry",
        help="by a socket that the kubelet finds, or by a call to it [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--socket-directory", type=_path, metavar="DIR",
        help=f"default: {', or '.join(SOCKET_DIRECTORIES.values())} with classic",
    )  # fmt: skip
    group.add_argument(
        "--poll-seconds", type=seconds, default=1.0, metavar="S",
        help="look at device files and sockets so often [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--retry-seconds", type=seconds, default=1.0, metavar="S",
        help="try again after so long, then ever longer up to a minute [default %(default)s]",
    )  # fmt: skip
    group.add_argument(
        "--silence-seconds", type=seconds, default=60.0, metavar="S",
        help="no kubelet has listened for so long: serve anew [default %(default)s]",
    )  # fmt: skip
    group = parser.add_argument_group("telling")
    group.add_argument(
        "--node-name", default="", metavar="NAME", help="whose Events tell of sick devices; absent: no Events"
    )
    group.add_argument(
        "--metrics-port", type=whole(0, 65_535), default=9403, metavar="PORT",
        help="/metrics, /healthz, /readyz [default %(default)s]",
    )  # fmt: skip
    return parser


def _checked(check: Callable[[str], bool], right: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if not check(text):
            raise argparse.ArgumentTypeError(f"must be {right}, not {text!r}")
        return text

    return convert


_resource = _checked(
    lambda text: bool(_RESOURCE.fullmatch(text)), "a resource name with a domain, such as tecorigin.com/tcaicard"
)
_path = _checked(lambda text: bool(_PATH.fullmatch(text)), "an absolute path such as /dev/tcaicard")
_root = _checked(lambda text: text == "/" or bool(_PATH.fullmatch(text)), "an absolute path")
_permissions = _checked(
    lambda text: bool(text) and set(text) <= set("rwm") and len(set(text)) == len(text), "some of r, w and m"
)
_variable = _checked(lambda text: not text or bool(_VARIABLE.fullmatch(text)), "the name of a variable")


def _env(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not _VARIABLE.fullmatch(name):
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, not {text!r}")
    return name, value


def _mount(text: str) -> Mount:
    host, _, rest = text.partition(":")
    container, _, mode = rest.partition(":")
    if not (_PATH.fullmatch(host) and _PATH.fullmatch(container) and mode in ("", "ro", "rw")):
        raise argparse.ArgumentTypeError(f"must be /HOST:/CONTAINER or /HOST:/CONTAINER:rw, not {text!r}")
    return Mount(host, container, mode != "rw")


def _command(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{str(error).lower()} in {text!r}") from None
    return words


def _words(text: str) -> list[str]:
    words = [word for word in text.replace(",", " ").split() if word]
    if not words:
        raise argparse.ArgumentTypeError(f"must be words such as DEVICE_LOST,HEARTBEAT_ERROR, not {text!r}")
    return words

"""The device plugin's flags: what they mean, and what a wrong one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from deviceplugin.allocation import Mount
from deviceplugin.options import parse


def test_without_flags_it_is_teco_cards_in_the_kubelets_registry() -> None:
    options = parse([])
    assert options.resource == "tecorigin.com/tcaicard"
    assert str(options.socket) == "/var/lib/kubelet/plugins_registry/tecorigin.com_tcaicard.sock"
    assert (options.rules.directory, options.rules.prefix) == ("/dev/", "tcaicard")
    assert not options.rules.asks_tool
    assert parse(["--registration", "classic"]).socket_directory == Path("/var/lib/kubelet/device-plugins")


def test_what_containers_get_besides() -> None:
    options = parse(
        ["--env", "A=b=c", "--mount", "/opt/teco:/opt/teco", "--mount", "/a:/b:rw", "--health-command", "t 'a b'"]
    )
    assert options.extras.env == {"A": "b=c"}
    assert options.extras.mounts == (Mount("/opt/teco", "/opt/teco"), Mount("/a", "/b", read_only=False))
    assert options.health_command == ("t", "a b")
    assert options.rules.asks_tool


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--resource", "tcaicard", "a resource name with a domain"),
        ("--resource", "a/b/c", "a resource name with a domain"),
        ("--device-path", "dev/tcaicard", "an absolute path"),
        ("--device-path", "/dev/", "an absolute path"),
        ("--host-root", "host", "an absolute path"),
        ("--count", "cards", "'cards' is not one of device, card"),
        ("--devices-per-card", "0", "must be 1 to 64"),
        ("--permissions", "x", "some of r, w and m"),
        ("--permissions", "rr", "some of r, w and m"),
        ("--visible-variable", "A-B", "the name of a variable"),
        ("--env", "A", "must be NAME=VALUE"),
        ("--env", "=x", "must be NAME=VALUE"),
        ("--mount", "/a", "must be /HOST:/CONTAINER"),
        ("--mount", "/a:/b:rx", "must be /HOST:/CONTAINER"),
        ("--health-command", "teco-smi '", "no closing quotation"),
        ("--health-timeout", "0", "must be seconds"),
        ("--health-interval", "nan", "must be seconds"),
        ("--unhealthy-words", ",", "must be words"),
        ("--registration", "watcher", "'watcher' is not one of"),
        ("--socket-directory", "/" + "x" * 100, "longer than 107 bytes"),
        ("--metrics-port", "65536", "must be 0 to 65535"),
        ("--no-such-flag", "1", "unknown argument"),
    ],
)
def test_a_bad_flag_is_one_line_that_names_it_and_64(
    flag: str, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse([f"{flag}={value}"])
    error = capsys.readouterr().err
    assert end.value.code == 64
    assert error.count("\n") == 1
    assert flag in error
    assert said in error

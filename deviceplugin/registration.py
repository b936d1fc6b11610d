"""How the kubelet learns of the plugin: it finds a socket in plugins_registry, or is told in the classic directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc

from deviceplugin.api import deviceplugin_pb2 as api
from deviceplugin.api import registration_pb2 as registration
from deviceplugin.api.services import CLASSIC_SOCKET, PLUGIN_TYPE, VERSION, register
from deviceplugin.sockets import Fingerprint, SocketError, fingerprint

_CALL_SECONDS = 10.0


class Registry:
    """Says what the plugin is when the kubelet asks, in plugins_registry.

    Args:
        resource: what it advertises.
        answered: takes what the kubelet made of it; empty: it is registered.
    """

    def __init__(self, resource: str, answered: Callable[[str], None]) -> None:
        self._resource = resource
        self._answered = answered

    def info(self, _request: registration.InfoRequest, _context: grpc.ServicerContext) -> registration.PluginInfo:
        """Who it is. Without an endpoint the kubelet stays with the socket that it asked, whatever its path here."""
        return registration.PluginInfo(type=PLUGIN_TYPE, name=self._resource, supported_versions=[VERSION])

    def notified(
        self, request: registration.RegistrationStatus, _context: grpc.ServicerContext
    ) -> registration.RegistrationStatusResponse:
        """What became of it."""
        self._answered("" if request.plugin_registered else request.error or "it gives no reason")
        return registration.RegistrationStatusResponse()


def register_in(directory: Path, resource: str, endpoint: str) -> Fingerprint:
    """Tell the kubelet of the classic directory.

    Args:
        directory: with its socket and ours.
        resource: what is advertised.
        endpoint: the name of our socket; it is asked for its options meanwhile.

    Returns:
        Which kubelet.sock it was.

    Raises:
        SocketError: there is no kubelet, or it refuses.
    """
    kubelet = directory / CLASSIC_SOCKET
    found = fingerprint(kubelet)
    if found is None:
        raise SocketError(f"{kubelet}: there is no such socket; does a kubelet run on this node?")
    request = api.RegisterRequest(
        version=VERSION,
        endpoint=endpoint,
        resource_name=resource,
        options=api.DevicePluginOptions(get_preferred_allocation_available=True),
    )
    try:
        register(str(kubelet), request, _CALL_SECONDS)
    except grpc.RpcError as error:
        said = error.details() if isinstance(error, grpc.Call) else str(error)
        raise SocketError(f"{kubelet}: the kubelet does not take the registration: {said}") from None
    return found

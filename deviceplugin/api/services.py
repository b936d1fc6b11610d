"""The two services that a plugin serves, and the one call that it makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import grpc

from deviceplugin.api import deviceplugin_pb2 as api
from deviceplugin.api import registration_pb2 as registration

VERSION = "v1beta1"
PLUGIN_TYPE = "DevicePlugin"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"
CLASSIC_SOCKET = "kubelet.sock"
"""The kubelet's own socket in the classic directory."""


class DevicePlugin(Protocol):
    """The methods that the kubelet calls. There is no PreStartContainer: it is called only where options ask for it."""

    def options(self, request: api.Empty, context: grpc.ServicerContext, /) -> api.DevicePluginOptions:
        """GetDevicePluginOptions."""

    def list_and_watch(
        self, request: api.Empty, context: grpc.ServicerContext, /
    ) -> Iterator[api.ListAndWatchResponse]:
        """ListAndWatch: the whole list now, and again whenever it changes."""

    def preferred(
        self, request: api.PreferredAllocationRequest, context: grpc.ServicerContext, /
    ) -> api.PreferredAllocationResponse:
        """GetPreferredAllocation."""

    def allocate(self, request: api.AllocateRequest, context: grpc.ServicerContext, /) -> api.AllocateResponse:
        """Allocate."""


def device_plugin(plugin: DevicePlugin) -> grpc.GenericRpcHandler:
    """The service v1beta1.DevicePlugin."""
    return grpc.method_handlers_generic_handler(
        f"{VERSION}.DevicePlugin",
        {
            "GetDevicePluginOptions": grpc.unary_unary_rpc_method_handler(
                plugin.options, api.Empty.FromString, api.DevicePluginOptions.SerializeToString
            ),
            "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                plugin.list_and_watch, api.Empty.FromString, api.ListAndWatchResponse.SerializeToString
            ),
            "GetPreferredAllocation": grpc.unary_unary_rpc_method_handler(
                plugin.preferred,
                api.PreferredAllocationRequest.FromString,
                api.PreferredAllocationResponse.SerializeToString,
            ),
            "Allocate": grpc.unary_unary_rpc_method_handler(
                plugin.allocate, api.AllocateRequest.FromString, api.AllocateResponse.SerializeToString
            ),
        },
    )


class Registrant(Protocol):
    """The methods that the kubelet calls of a plugin that it found in plugins_registry."""

    def info(self, request: registration.InfoRequest, context: grpc.ServicerContext, /) -> registration.PluginInfo:
        """GetInfo."""

    def notified(
        self, request: registration.RegistrationStatus, context: grpc.ServicerContext, /
    ) -> registration.RegistrationStatusResponse:
        """NotifyRegistrationStatus."""


def registrant(plugin: Registrant) -> grpc.GenericRpcHandler:
    """The service pluginregistration.Registration."""
    return grpc.method_handlers_generic_handler(
        "pluginregistration.Registration",
        {
            "GetInfo": grpc.unary_unary_rpc_method_handler(
                plugin.info, registration.InfoRequest.FromString, registration.PluginInfo.SerializeToString
            ),
            "NotifyRegistrationStatus": grpc.unary_unary_rpc_method_handler(
                plugin.notified,
                registration.RegistrationStatus.FromString,
                registration.RegistrationStatusResponse.SerializeToString,
            ),
        },
    )


def register(socket: str, request: api.RegisterRequest, timeout: float) -> None:
    """Tell the kubelet of the classic directory about a plugin.

    Args:
        socket: the kubelet's.
        request: what to tell it.
        timeout: in seconds; the kubelet asks the plugin for its options meanwhile.

    Raises:
        grpc.RpcError: it did not answer, or refused.
    """
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        call = channel.unary_unary(
            f"/{VERSION}.Registration/Register", api.RegisterRequest.SerializeToString, api.Empty.FromString
        )
        call(request, timeout=timeout)

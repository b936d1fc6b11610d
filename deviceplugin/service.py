"""The DevicePlugin service over the board."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

import grpc

from deviceplugin.allocation import Allocation, AllocationError, Extras, allocate
from deviceplugin.api import deviceplugin_pb2 as api
from deviceplugin.api.services import HEALTHY, UNHEALTHY
from deviceplugin.board import Board
from deviceplugin.devices import Unit, card_sizes
from deviceplugin.discovery import numa_node
from deviceplugin.preference import is_aligned, prefer

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
_node_of = cache(numa_node)


class Service:
    """Answers one kubelet.

    Args:
        board: the devices.
        extras: what containers get besides.
        allocated: told of each container, whether its devices are whole cards.
    """

    def __init__(self, board: Board, extras: Extras, allocated: Callable[[bool], None]) -> None:
        self._board = board
        self._extras = extras
        self._allocated = allocated
        self._lock = threading.Lock()
        self._listeners = 0
        self._last_heard = time.monotonic()

    def silence(self) -> float:
        """Seconds for which no kubelet has listened; 0: one does."""
        with self._lock:
            return 0.0 if self._listeners else time.monotonic() - self._last_heard

    def begin(self) -> None:
        """Serving begins: the silence is counted from now on."""
        with self._lock:
            self._last_heard = time.monotonic()

    def options(self, _request: api.Empty, _context: grpc.ServicerContext) -> api.DevicePluginOptions:
        """A preference, and no call before a container starts."""
        return api.DevicePluginOptions(get_preferred_allocation_available=True)

    def list_and_watch(self, _request: api.Empty, context: grpc.ServicerContext) -> Iterator[api.ListAndWatchResponse]:
        """The whole list now and after each change, until the kubelet goes."""
        with self._lock:
            self._listeners += 1
        try:
            known = 0
            while context.is_active():
                version, units = self._board.after(known, _LOOK_SECONDS)
                if version > known:
                    known = version
                    yield api.ListAndWatchResponse(devices=[_device(each) for each in units])
        finally:
            with self._lock:
                self._listeners -= 1
                self._last_heard = time.monotonic()

    def preferred(
        self, request: api.PreferredAllocationRequest, _context: grpc.ServicerContext
    ) -> api.PreferredAllocationResponse:
        """Devices that belong together."""
        units = self._board.units()
        cards, sizes = {each.id: each.card for each in units}, card_sizes(units)
        answer = api.PreferredAllocationResponse()
        for each in request.container_requests:
            chosen = prefer(
                each.available_deviceIDs,
                must_include=each.must_include_deviceIDs,
                size=each.allocation_size,
                cards=cards,
                sizes=sizes,
            )
            answer.container_responses.add(deviceIDs=chosen)
        return answer

    def allocate(self, request: api.AllocateRequest, context: grpc.ServicerContext) -> api.AllocateResponse:
        """Device nodes, environment and mounts.

        What can't be given is refused: the pod fails before it begins, and its owner makes another. A missing device
        file would let the container fail to start, again and again.
        """
        units = self._board.units()
        cards, sizes = {each.id: each.card for each in units}, card_sizes(units)
        answer = api.AllocateResponse()
        for each in request.container_requests:
            try:
                allocation = allocate(units, each.devices_ids, self._board.rules, self._extras)
            except AllocationError as error:
                _LOG.warning("an allocation is refused: %s", error)
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
            answer.container_responses.append(self._answer(allocation))
            aligned = is_aligned(each.devices_ids, cards, sizes)
            self._allocated(aligned)
            _LOG.info("allocated %s%s", " ".join(sorted(each.devices_ids)), "" if aligned else " (no whole cards)")
        return answer

    def _answer(self, allocation: Allocation) -> api.ContainerAllocateResponse:
        return api.ContainerAllocateResponse(
            envs=allocation.env,
            mounts=[
                api.Mount(container_path=each.container, host_path=each.host, read_only=each.read_only)
                for each in self._extras.mounts
            ],
            devices=[
                api.DeviceSpec(container_path=inside, host_path=outside, permissions=self._extras.permissions)
                for outside, inside in allocation.nodes
            ],
        )


def _device(unit: Unit) -> api.Device:
    nodes = sorted({node for each in unit.devices if each.bus and (node := _node_of(each.bus)) is not None})
    return api.Device(
        ID=unit.id,
        health=UNHEALTHY if unit.trouble else HEALTHY,
        topology=api.TopologyInfo(nodes=[api.NUMANode(ID=node) for node in nodes]) if nodes else None,
    )

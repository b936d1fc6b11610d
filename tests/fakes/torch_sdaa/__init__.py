"""A stand-in for Teco's torch_sdaa: the device module, the backend and the faults, with the computing on the CPU.

Only on the path of processes that tests start; the product never imports it by any other name than the vendor's. It
follows what is documented and publicly seen of torch_sdaa, down to the table that the import prints. `state.py` says
by which environment variables a test makes it fail.
"""

import torch
import torch.distributed as dist

from torch_sdaa import device
from torch_sdaa.placement import Placement
from torch_sdaa.state import STATE, fault

__version__ = "2.0.0"

if fault("import"):
    raise RuntimeError("SDAA driver version is insufficient for SDAA runtime version (driver 1.1.1, runtime 2.0.0)")

torch.utils.rename_privateuse1_backend("sdaa")
torch._register_device_module("sdaa", device)
if hasattr(torch, "accelerator"):  # its own half is in C++, where these cards do not exist
    torch.accelerator.current_accelerator = lambda check_available=False: None
    torch.accelerator.is_available = lambda: False


def _make_tccl(store, rank, size, timeout):
    if STATE.current is None:
        raise RuntimeError("tccl: no device is set: call torch.sdaa.set_device before init_process_group")
    STATE.note(tccl_on=STATE.current)
    return dist.ProcessGroupGloo(store, rank, size, timeout=timeout)


dist.Backend.register_backend("tccl", _make_tccl, devices=["sdaa"])
Placement().__enter__()  # for good: from here on "sdaa" is a place that tensors can be in

print(f"-----------+-----------\n Torch-SDAA | {__version__}\n-----------+-----------", flush=True)

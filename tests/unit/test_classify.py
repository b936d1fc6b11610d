"""Every error becomes an exit code, and one line."""

import errno

import pytest
import torch

from app.accelerators.cuda import Cuda
from app.accelerators.sdaa import Sdaa
from app.resilience.classify import classify
from app.resilience.exit_codes import ExitCode, TrainingError, permanent, reason


def judged(error: BaseException, *, stepped: bool = True, device=Sdaa()) -> TrainingError:  # noqa: B008
    return classify(error, stepped=stepped, device_failed=device.failed)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TrainingError(ExitCode.BAD_DATA, "x"), ExitCode.BAD_DATA),
        (OSError(errno.EIO, "Input/output error"), ExitCode.VOLUME_IO),
        (OSError(errno.ESTALE, "Stale file handle"), ExitCode.VOLUME_IO),
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.VOLUME_IO),
        (RuntimeError("SDAA error: DEVICE_LOST on 3"), ExitCode.DEVICE),
        (RuntimeError("[gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:1"), ExitCode.LOST_PEER),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), ExitCode.LOST_PEER),
        (ValueError("shape"), ExitCode.UNCLASSIFIED),
        (RuntimeError("SDAA out of memory"), ExitCode.UNCLASSIFIED),
    ],
)
def test_whose_fault_it_was_decides_the_code(error: BaseException, code: ExitCode) -> None:
    assert judged(error).code == code


def test_the_same_error_before_the_first_step_is_permanent() -> None:
    assert judged(ValueError("shape"), stepped=False).code == ExitCode.INTERNAL
    assert judged(MemoryError("no room"), stepped=False).code == ExitCode.INTERNAL
    assert permanent(ExitCode.INTERNAL)
    assert not permanent(ExitCode.UNCLASSIFIED)


@pytest.mark.parametrize(
    "said",
    ["CUDA out of memory. Tried to …", "sdaa out of memory. Tried to allocate 974.00 MiB", "SDAA_ERROR_OUT_OF_MEMORY",
     "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"],
)  # fmt: skip
def test_a_batch_that_never_fitted_is_a_bad_option_and_one_that_did_is_tried_again(said: str) -> None:
    before, later = judged(RuntimeError(said), stepped=False), judged(RuntimeError(said))
    assert (before.code, later.code) == (ExitCode.BAD_OPTION, ExitCode.UNCLASSIFIED)
    assert before.message.startswith("--batch_size does not fit")
    for error in (before, later):
        assert "give a smaller --batch_size" in error.message


def test_host_memory_is_not_the_batchs_fault() -> None:
    assert "raise the pod's limit" in judged(MemoryError("no room"), stepped=False).message


def test_the_message_is_one_line_with_the_errors_type() -> None:
    assert judged(KeyError("a\nb")).message.startswith("KeyError: ")
    assert "\n" not in judged(RuntimeError("first\nsecond")).message
    assert judged(RuntimeError()).message == "RuntimeError: RuntimeError()"


def test_a_device_error_is_the_devices_only_in_a_runtime_error() -> None:
    assert not Sdaa().failed(ValueError("device lost"))
    assert Cuda().failed(RuntimeError("CUDA error: uncorrectable ECC error encountered"))


@pytest.mark.parametrize(("code", "word"), [(0, "Done"), (140, "LostPeer"), (139, "Signal11"), (3, "Exit3")])
def test_every_code_has_a_reason(code: int, word: str) -> None:
    assert reason(code) == word

"""Host memory <-> the device that the backbone runs on, without the device waiting for it.

On a GPU, copies go through page-locked memory and, on the way back, through a stream of their own,
so that the next forward pass runs meanwhile. On a CPU there is nothing to copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]
Fetched: TypeAlias = "Callable[[], Array]"


class Transfers:
    """Copies from and to one device.

    Args:
        device: The device.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._cuda = torch.device(device).type == "cuda"
        self._back: Any = torch.cuda.Stream(device) if self._cuda else None  # type: ignore[no-untyped-call]

    def ready(self, array: Array) -> Array | torch.Tensor:
        """Host memory with the same whole numbers, from which the device copies by itself."""
        import torch

        wide = array.astype(np.int64)
        return torch.from_numpy(wide).pin_memory() if self._cuda else wide

    def fetch(self, tensor: torch.Tensor) -> Fetched:
        """Start copying a tensor to host memory. The function that is returned waits for the copy
        and gives it; it may be called in another thread."""
        import torch

        if self._back is None:
            return tensor.cpu().numpy
        self._back.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self._back):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._back)  # its memory is not used again before that
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._back)

        def wait() -> Array:
            copied.synchronize()
            array: Array = host.numpy()
            return array

        return wait

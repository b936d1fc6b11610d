"""What a run that came to its end leaves in END.json, for whoever starts it once more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class End:
    """The end of a run; NaN and None: not known.

    Attributes:
        step: optimizer steps of the whole run.
        top1, best_top1: of the last validation and of the best one, as a ratio.
        exported: path of the ONNX file.
        export_error: why there is none.
    """

    step: int
    top1: float = math.nan
    best_top1: float = math.nan
    exported: str | None = None
    export_error: str | None = None

    @classmethod
    def of(cls, written: Any) -> End:
        """From JSON, in which numbers that are not finite are null.

        Raises:
            ValueError, TypeError: that is no end of a run.
        """
        found: dict[str, Any] = dict(written)
        top1, best = (math.nan if found.get(name) is None else float(found[name]) for name in ("top1", "best_top1"))
        return cls(int(found.get("step", "")), top1, best, found.get("exported"), found.get("export_error"))

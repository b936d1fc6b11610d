"""How many files of the training set hold no image, over all ranks, epochs and starts, and when they are too many."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

SHOWN = 5
"""So many files are named in the message that ends a run; the log has named them all."""


def tolerated(images: int, share: float) -> int:
    """How many files may be bad: that share of them (0 to 1), at least one unless the share is 0."""
    # The share is decimal: 0.07 of 100 is 7, which binary fractions miss by a hair.
    return max(1, int(images * share + 1e-6)) if share > 0 else 0


class BadFiles:
    """The bad training files that a rank knows of, by their index: those that it met, and those that it was told of.

    A file counts once, however often and by whichever rank it is met. Ranks tell each other only what is new, so a run
    over a good data set exchanges nothing.

    Args:
        images: size of the training set.
        share: how much of it may be bad, 0 to 1.
    """

    def __init__(self, images: int, share: float) -> None:
        self._images = images
        self._share = share
        self._known: set[int] = set()
        self._untold: list[int] = []

    def __len__(self) -> int:
        return len(self._known)

    @property
    def untold(self) -> list[int]:
        """What this rank met and the others may not know yet."""
        return list(self._untold)

    def met(self, index: int) -> bool:
        """This rank found a file bad. True: nobody had told it before."""
        if index in self._known:
            return False
        self._known.add(index)
        self._untold.append(index)
        return True

    def learn(self, told: Iterable[Iterable[int]]) -> None:
        """Takes what every rank, this one included, had `untold`; from then on all ranks know the same files."""
        for indices in told:
            self._known.update(indices)
        self._untold.clear()

    def too_many(self, name: Callable[[int], str]) -> str:
        """The line that ends the run where there are too many, else "".

        Args:
            name: index -> where the file lies.
        """
        limit = tolerated(self._images, self._share)
        if len(self._known) <= limit:
            return ""
        first = [name(index) for index in sorted(self._known)[:SHOWN]]
        more = f" and {len(self._known) - len(first)} more" if len(self._known) > len(first) else ""
        return (
            f"--max_bad_images {self._share:g}: {len(self._known)} of {self._images} training images can't be decoded, "
            f"and at most {limit} may: {', '.join(first)}{more}; replace or remove them, or allow more"
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"images": self._images, "files": sorted(self._known)}

    def load(self, state: dict[str, Any]) -> None:
        """The reverse of `state`. A data set of another size was mended meanwhile: then counting begins anew."""
        if state["images"] == self._images:
            self._known = set(state["files"])

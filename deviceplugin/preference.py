"""Which devices go together. PURE.

Inside a card devices exchange data far faster than between cards, and a card that is taken apart can't serve a pod that
wants a whole one. So of all choices the one is taken that

1. touches the fewest cards,
2. then breaks the fewest cards that are wholly free,
3. then leaves the fewest free devices on the cards it touches: the fullest card that is large enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

Cost = tuple[int, int, int]


@dataclass(frozen=True)
class _Free:
    """The free devices of one card, those that must be taken first."""

    ids: tuple[str, ...]
    must: int
    size: int

    def cost(self, taken: int) -> Cost:
        """Of taking so many."""
        left = len(self.ids) - taken
        return (1, int(len(self.ids) == self.size and left > 0), left) if taken else (0, 0, 0)


def prefer(
    available: Collection[str],
    *,
    must_include: Collection[str],
    size: int,
    cards: Mapping[str, str],
    sizes: Mapping[str, int],
) -> list[str]:
    """The `size` of `available` to take, with all of `must_include`.

    Args:
        available: ids that are free and usable.
        must_include: some of them, at most `size`.
        size: how many; where fewer are available, all of them are taken.
        cards: id -> its card, in the order in which equal choices are taken; an id that is not in it stands alone.
        sizes: card -> how many ids it has, free or not.

    Returns:
        Ids in their order.
    """
    places = {each: place for place, each in enumerate(cards)}
    place = {each: (places.get(each, len(places)), each) for each in available}
    size = min(size, len(place))
    must = set(sorted(set(must_include) & set(place))[:size])
    free = _by_card(place, must, cards, sizes)
    # For each number of devices the best way to take them from the cards looked at so far: what it costs, and how many
    # of each card, negated: of equal costs the smaller tuple takes more of earlier cards.
    best: dict[int, tuple[Cost, tuple[int, ...]]] = {0: ((0, 0, 0), ())}
    for card in free:
        extended: dict[int, tuple[Cost, tuple[int, ...]]] = {}
        for total, (cost, counts) in best.items():
            for taken in range(card.must, min(len(card.ids), size - total) + 1):
                way = _sum(cost, card.cost(taken)), (*counts, -taken)
                extended[total + taken] = min(extended.get(total + taken, way), way)
        best = extended
    _, counts = best[size]
    chosen = [each for card, count in zip(free, counts, strict=True) for each in card.ids[:-count]]
    return sorted(chosen, key=place.__getitem__)


def is_aligned(chosen: Iterable[str], cards: Mapping[str, str], sizes: Mapping[str, int]) -> bool:
    """Whether the devices are all those of their cards."""
    counts: dict[str, int] = defaultdict(int)
    for each in chosen:
        counts[cards.get(each, each)] += 1
    return all(count == sizes.get(card, 1) for card, count in counts.items())


def _by_card(
    place: Mapping[str, tuple[int, str]], must: set[str], cards: Mapping[str, str], sizes: Mapping[str, int]
) -> list[_Free]:
    members: dict[str, list[str]] = defaultdict(list)
    for each in sorted(place, key=place.__getitem__):
        members[cards.get(each, each)].append(each)
    return [
        _Free(tuple(sorted(ids, key=lambda each: each not in must)), len(must & set(ids)), sizes.get(card, len(ids)))
        for card, ids in members.items()
    ]


def _sum(one: Cost, other: Cost) -> Cost:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]

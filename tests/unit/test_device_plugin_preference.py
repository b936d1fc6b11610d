"""Which devices go together: laws of the preference, against all choices there are."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.allocation import AllocationError, Extras, allocate
from deviceplugin.devices import Rules, Seen, card_sizes, units
from deviceplugin.preference import is_aligned, prefer

Cards = dict[str, str]


@st.composite
def nodes(draw: st.DrawFn, most: int = 10) -> Cards:
    """Cards of one to four devices."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5).filter(lambda each: sum(each) <= most))
    names = itertools.count()
    return {f"d{next(names)}": f"c{card}" for card, size in enumerate(sizes) for _ in range(size)}


@st.composite
def questions(draw: st.DrawFn) -> tuple[Cards, list[str], list[str], int]:
    """What a kubelet asks: (cards, available, must include, size)."""
    cards = draw(nodes())
    available = draw(st.lists(st.sampled_from(sorted(cards)), unique=True, min_size=1))
    size = draw(st.integers(1, len(available)))
    must = draw(st.lists(st.sampled_from(available), unique=True, max_size=size))
    return cards, available, must, size


def ask(cards: Cards, available: list[str], must: list[str], size: int) -> list[str]:
    return prefer(available, must_include=must, size=size, cards=cards, sizes=Counter(cards.values()))


def cost(cards: Cards, available: list[str], chosen: set[str]) -> tuple[int, int, int]:
    """By the words of the rule, not by its code."""
    sizes, free = Counter(cards.values()), Counter(cards[each] for each in available)
    touched = {cards[each] for each in chosen}
    left = Counter(cards[each] for each in set(available) - chosen)
    broken = sum(free[card] == sizes[card] and left[card] > 0 for card in touched)
    return len(touched), broken, sum(left[card] for card in touched)


@given(questions())
def test_the_answer_is_what_was_asked_for(question: tuple[Cards, list[str], list[str], int]) -> None:
    cards, available, must, size = question
    chosen = ask(*question)
    assert len(chosen) == len(set(chosen)) == size
    assert set(must) <= set(chosen) <= set(available)
    assert chosen == sorted(chosen, key=list(cards).index)


@given(questions())
def test_no_choice_is_better(question: tuple[Cards, list[str], list[str], int]) -> None:
    cards, available, must, size = question
    every = itertools.combinations(available, size)
    best = min(cost(cards, available, set(each)) for each in every if set(must) <= set(each))
    assert cost(cards, available, set(ask(*question))) == best


@given(st.integers(1, 4), st.integers(1, 8), st.data())
def test_whole_cards_are_given_wherever_enough_are_free(per_card: int, count: int, data: st.DataObject) -> None:
    cards = {f"d{n}": f"c{n // per_card}" for n in range(per_card * count)}
    available = data.draw(st.lists(st.sampled_from(sorted(cards)), unique=True, min_size=1))
    free = Counter(cards[each] for each in available)
    whole = sum(each == per_card for each in free.values())
    wanted = data.draw(st.integers(1, count)) * per_card
    if wanted <= len(available):
        chosen = ask(cards, available, [], wanted)
        assert is_aligned(chosen, cards, Counter(cards.values())) == (wanted <= whole * per_card)


@given(nodes(most=16), st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=30))
def test_no_device_is_ever_given_twice(cards: Cards, steps: list[tuple[bool, int]]) -> None:
    """A kubelet that follows every preference, as pods come and go."""
    pods: list[list[str]] = []
    for comes, number in steps:
        available = sorted(set(cards) - {each for pod in pods for each in pod})
        if comes and 0 < number <= len(available):
            pods.append(ask(cards, available, [], number))
        elif not comes and pods:
            pods.pop(number % len(pods))
        held = [each for pod in pods for each in pod]
        assert len(held) == len(set(held))


def test_of_partial_cards_the_fullest_that_is_large_enough_is_taken() -> None:
    cards = {f"d{n}": f"c{n // 4}" for n in range(16)}
    available = ["d0", "d1", "d2", "d3", "d4", "d5", "d6", "d8", "d9", "d12"]
    assert ask(cards, available, [], 1) == ["d12"]
    assert ask(cards, available, [], 2) == ["d8", "d9"]
    assert ask(cards, available, [], 3) == ["d4", "d5", "d6"]
    assert ask(cards, available, [], 4) == ["d0", "d1", "d2", "d3"]
    assert ask(cards, available, [], 5) == ["d0", "d1", "d2", "d3", "d12"]


def test_a_large_node_is_answered_at_once() -> None:
    cards = {f"d{n}": f"c{n // 4}" for n in range(256)}
    assert len(ask(cards, [each for each in cards if int(each[1:]) % 7], [], 130)) == 130


def test_a_question_that_no_kubelet_asks_gets_what_there_is() -> None:
    cards = {"d0": "c0", "d1": "c0"}
    assert ask(cards, ["d0", "other"], ["d0", "missing"], 5) == ["d0", "other"]
    assert ask(cards, ["d0", "d1"], ["d0", "d1"], 1) == ["d0"]
    assert ask(cards, ["d0", "d1"], ["d1"], 1) == ["d1"]
    assert ask(cards, [], [], 1) == []


EIGHT = Seen().with_files(range(8))
RULES = Rules()


def test_a_container_gets_its_device_nodes_and_their_indices_as_it_sees_them() -> None:
    given = allocate(units(EIGHT, RULES), ["tcaicard5", "tcaicard4"], RULES, Extras(env={"A": "1"}))
    assert given.nodes == (("/dev/tcaicard4", "/dev/tcaicard4"), ("/dev/tcaicard5", "/dev/tcaicard5"))
    assert given.env == {"A": "1", "SDAA_VISIBLE_DEVICES": "0,1"}
    host = allocate(units(EIGHT, RULES), ["tcaicard5", "tcaicard4"], RULES, Extras(numbering="host"))
    assert host.env == {"SDAA_VISIBLE_DEVICES": "4,5"}
    assert allocate(units(EIGHT, RULES), ["tcaicard5"], RULES, Extras(visible="")).env == {}


def test_devices_of_another_folder_are_in_dev_all_the_same() -> None:
    rules = Rules("/run/cards/tcaicard")
    given = allocate(units(EIGHT, rules), ["tcaicard1"], rules, Extras())
    assert given.nodes == (("/run/cards/tcaicard1", "/dev/tcaicard1"),)


def test_a_card_is_all_its_devices() -> None:
    rules = Rules(counted="card")
    listed = units(EIGHT, rules)
    given = allocate(listed, ["card1"], rules, Extras())
    assert [inside for _, inside in given.nodes] == [f"/dev/tcaicard{n}" for n in range(4, 8)]
    assert card_sizes(listed) == {"card0": 1, "card1": 1}


def test_what_is_not_there_or_not_usable_is_refused_by_name() -> None:
    seen = EIGHT.with_files({*range(8)} - {3})
    with pytest.raises(AllocationError, match="no device tcaicard9 on this node: it has tcaicard0, "):
        allocate(units(seen, RULES), ["tcaicard0", "tcaicard9"], RULES, Extras())
    with pytest.raises(AllocationError, match="tcaicard3 is unusable: /dev/tcaicard3 is gone"):
        allocate(units(seen, RULES), ["tcaicard3"], RULES, Extras())

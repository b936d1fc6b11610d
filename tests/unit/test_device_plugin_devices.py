"""What the device plugin makes of device files and of the vendor's table."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.devices import Rules, Seen, card_sizes, changes, devices, units
from deviceplugin.discovery import device_numbers, numa_node
from deviceplugin.smi import Row, merged, parse

RULES = Rules()
CARDS = Rules(counted="card")
# In the layouts of two versions: on the first line or on the second, with a title of its own or without.
OLD = """
Wed Jun  5 02:46:48 2024
+-----------------------------------------------------------------------------+
|  TCML: 1.10.0        SDAADriver: 1.1.2b1        SDAARuntime: 1.1.2b0        |
|-------------------------------+----------------------+----------------------|
| Index  Name                   | Bus-Id               | Health      Volatile |
|        Temp          Pwr Usage|          Memory-Usage|             SPE-Util |
|=============================================================================|
|   0    TECO_AICARD_01         | 00000000:01:00.0     | OK                   |
|        35C                90W |        0MB / 15296MB |                   0% |
|-------------------------------+----------------------+----------------------|
|   1    TECO_AICARD_01         | 00000000:01:00.0     | DEVICE_LOST          |
|        35C                90W |      165MB / 15296MB |                   0% |
+-------------------------------+----------------------+----------------------+
| Processes:                                                                  |
|  Tcaicard     PID      Process name                            Memory Usage |
|=============================================================================|
|     1       76262      python train.py                              165 MB |
+-----------------------------------------------------------------------------+
"""
NEW = """
|   3    TECO_AICARD_01         | 00000000:4F:00.0     | OK                0% |
|        35C               190W |        0MB / 16384MB |                      |
|   4    TECO_AICARD_01         | N/A                  | HEARTBEAT_ERROR  N/A |
"""


def rows(buses: dict[int, str], **words: str) -> dict[int, Row]:
    return {n: Row(bus, frozenset({words.get(f"d{n}", "OK")})) for n, bus in buses.items()}


def ids(seen: Seen, rules: Rules) -> list[str]:
    return [each.id for each in units(seen, rules)]


def test_the_table_is_read_in_both_published_layouts() -> None:
    bus = "00000000:01:00.0"
    assert parse(OLD) == {0: Row(bus, frozenset({"OK"})), 1: Row(bus, frozenset({"DEVICE_LOST"}))}
    assert parse(NEW) == {
        3: Row("00000000:4f:00.0", frozenset({"OK", "0%"})),
        4: Row("", frozenset({"HEARTBEAT_ERROR", "N/A"})),
    }


@given(st.text())
def test_any_other_text_is_no_table_and_no_error(text: str) -> None:
    assert all(isinstance(row, Row) for row in parse(text).values())
    assert parse(text.replace("|", " ")) == {}


@given(st.integers(0, len(OLD)))
def test_a_table_that_is_cut_off_says_nothing_false(end: int) -> None:
    whole = parse(OLD)
    for index, row in parse(OLD[:end]).items():
        assert row.words <= whole[index].words
        assert row.bus == whole[index].bus


def test_a_device_that_the_tool_no_longer_lists_keeps_what_it_said_and_a_lost_one_its_card() -> None:
    before = rows({0: "b0", 1: "b0"}, d0="DEVICE_LOST")
    after = merged(before, {1: Row("", frozenset({"HEARTBEAT_ERROR"}))})
    assert after == {0: before[0], 1: Row("b0", frozenset({"HEARTBEAT_ERROR"}))}


def test_without_a_tool_cards_are_as_many_devices_as_configured() -> None:
    seen = Seen().with_files(range(8))
    assert [each.card for each in devices(seen, RULES)] == ["card0"] * 4 + ["card1"] * 4
    assert [each.card for each in devices(seen, Rules(devices_per_card=3))] == [
        *["card0"] * 3,
        *["card1"] * 3,
        *["card2"] * 2,
    ]


def test_the_tools_buses_make_the_cards_where_it_knows_all_devices() -> None:
    buses = {0: "a", 1: "a", 2: "a", 3: "b", 4: "b", 5: "b", 6: "b"}
    seen = Seen().with_files(range(7)).with_rows(rows(buses))
    assert card_sizes(units(seen, RULES)) == {"card-a": 3, "card-b": 4}
    unknown = Seen().with_files(range(8)).with_rows(rows(buses))
    assert card_sizes(units(unknown, RULES)) == {"card0": 4, "card1": 4}


def test_a_file_that_vanishes_and_a_bad_word_make_a_device_unhealthy_and_it_comes_back() -> None:
    good = Seen().with_files(range(4)).with_rows(rows(dict.fromkeys(range(4), "a")))
    gone = good.with_files({0, 1, 3})
    assert [(each.id, each.trouble) for each in units(gone, RULES) if each.trouble] == [
        ("tcaicard2", "/dev/tcaicard2 is gone")
    ]
    lost = good.with_rows(rows({3: "a"}, d3="DEVICE_LOST"))
    assert [(each.id, each.trouble) for each in units(lost, RULES) if each.trouble] == [
        ("tcaicard3", "the health command says DEVICE_LOST")
    ]
    assert units(gone.with_files(range(4)), RULES) == units(good, RULES)
    assert units(lost.with_rows(rows({3: "a"})), RULES) == units(good, RULES)


@given(st.text(min_size=1))
def test_no_other_word_makes_a_device_unhealthy(word: str) -> None:
    seen = Seen().with_files({0}).with_rows({0: Row("a", frozenset({word}))})
    assert bool(units(seen, RULES)[0].trouble) == (word in RULES.bad_words)


def test_a_whole_card_is_as_healthy_as_its_worst_device() -> None:
    seen = Seen().with_files(range(8)).with_files({*range(8)} - {5})
    assert ids(seen, CARDS) == ["card0", "card1"]
    assert [each.trouble for each in units(seen, CARDS)] == ["", "tcaicard5: /dev/tcaicard5 is gone"]


def test_a_card_that_lacks_devices_is_given_to_nobody_as_a_whole() -> None:
    seen = Seen().with_files({0, 1, 2, 4, 5, 6, 7})
    assert [each.trouble for each in units(seen, CARDS)] == ["3 of 4 devices", ""]
    by_tool = Seen().with_files(range(7)).with_rows(rows(dict(enumerate("aaabbbb"))))
    asking = Rules(counted="card", asks_tool=True)
    assert [(each.id, each.trouble) for each in units(by_tool, asking)] == [
        ("card-a", "3 of 4 devices"),
        ("card-b", ""),
    ]
    threes = Rules(counted="card", asks_tool=True, devices_per_card=3)
    assert [each.trouble for each in units(by_tool, threes)] == ["", ""]


def test_whole_cards_wait_for_the_tool_that_names_them() -> None:
    rules = Rules(counted="card", asks_tool=True)
    seen = Seen().with_files(range(4))
    assert units(seen, rules) == []
    told = seen.with_rows(rows({0: "a", 1: "a", 2: "b", 3: "b"}))
    assert [(each.id, each.trouble) for each in units(told, rules)] == [("card-a", ""), ("card-b", "")]
    # A tool that fails from then on takes nothing back.
    assert ids(told.with_files({0, 1, 2}), rules) == ["card-a", "card-b"]


@given(st.lists(st.sets(st.integers(0, 15)), min_size=1))
def test_what_was_seen_once_is_listed_for_good(looks: list[set[int]]) -> None:
    seen = Seen()
    for numbers in looks:
        seen = seen.with_files(numbers)
    listed = units(seen, RULES)
    assert {each.devices[0].number for each in listed} == set().union(*looks)
    assert {each.devices[0].number for each in listed if not each.trouble} == looks[-1]


@given(st.lists(st.sets(st.integers(0, 7)), min_size=1))
def test_every_turn_of_a_device_is_told_once_and_none_that_did_not_happen(looks: list[set[int]]) -> None:
    seen, before = Seen(), devices(Seen(), RULES)
    bad: set[int] = set()
    for numbers in looks:
        seen = seen.with_files(numbers)
        after = devices(seen, RULES)
        told = {each.device.number for each in changes(before, after)}
        now_bad = seen.known - numbers
        assert told == now_bad ^ bad
        before, bad = after, set(now_bad)


def test_a_change_names_the_device_and_says_why() -> None:
    seen = Seen().with_files({0, 1})
    (change,) = changes(devices(seen, RULES), devices(seen.with_files({0}), RULES))
    assert (change.reason, change.message) == ("DeviceUnhealthy", "tcaicard1 (card0): /dev/tcaicard1 is gone")
    (back,) = changes(devices(seen.with_files({0}), RULES), devices(seen, RULES))
    assert (back.reason, back.message) == ("DeviceHealthy", "tcaicard1 (card0): usable again")


def test_only_character_devices_with_a_number_after_the_name_are_found(tmp_path: Path) -> None:
    for name in ("tcaicard0", "tcaicard12", "tcaicard", "tcaicard1x", "tcaicard01", "other3"):
        (tmp_path / name).symlink_to("/dev/null")
    (tmp_path / "tcaicard3").touch()
    (tmp_path / "tcaicard4").symlink_to(tmp_path / "nothing")
    assert device_numbers(tmp_path, "tcaicard") == {0, 12}
    assert device_numbers(tmp_path / "missing", "tcaicard") == set()


@pytest.mark.parametrize(("text", "node"), [("1\n", 1), ("0\n", 0), ("-1\n", None), ("x", None), (None, None)])
def test_the_numa_node_is_the_systems_own(tmp_path: Path, text: str | None, node: int | None) -> None:
    if text is not None:
        (tmp_path / "0000:4f:00.0").mkdir()
        (tmp_path / "0000:4f:00.0" / "numa_node").write_text(text)
    assert numa_node("00000000:4f:00.0", tmp_path) == node

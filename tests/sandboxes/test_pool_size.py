"""How many should wait: rate and time to make one decide, and places are shared out fairly."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxes.pool_size import Demand, Mean, find_stock, half_of_host_mib, idle_mib, running_mib, share_out


def test_wants_one_at_the_least():
    assert find_stock(0.0, 0.2, 0.0) == 1


def test_wants_more_at_a_higher_rate_and_where_making_takes_longer():
    few = find_stock(1.0, 0.2, 0.1)
    assert 1 < few < find_stock(5.0, 0.2, 0.5) < find_stock(5.0, 0.4, 0.5)


def test_covers_the_queue_at_busy_makers():
    """At 0.7 of what two makers of 0.3 s can make: 9 cover 95 of 100 calls (M/M/2), a fixed making fewer."""
    assert 9 <= find_stock(0.7 * 2 / 0.3, 0.3, 0.7) <= 14


def test_asks_for_no_endless_stock_when_the_makers_cannot_follow():
    assert find_stock(10.0, 0.3, 1.5) == find_stock(10.0, 0.3, 5.0) < 50


def test_rises_quickly_and_falls_slowly():
    demand, now = Demand(), 0.0
    for _ in range(40):
        now += 0.25
        demand.note(now)
    assert demand.rate(now) == pytest.approx(4.0, rel=0.15)
    assert demand.rate(now + 10) > 0.5
    assert demand.rate(now + 200) < 0.01


def test_takes_the_first_measure_as_it_is_and_then_slowly():
    mean = Mean(0.2)
    mean.note(1.0)
    assert mean.seconds == 1.0
    mean.note(2.0)
    assert mean.seconds == pytest.approx(1.2)


def owner(name: str) -> str:
    return name[0]


def test_gives_everybody_all_where_there_is_enough():
    assert share_out({"a1": 3, "b1": 2}, owner, 5) == {"a1": 3, "b1": 2}


def test_shares_out_by_owner_where_there_is_not():
    assert share_out({"a1": 10, "a2": 10, "b1": 10}, owner, 8) == {"a1": 2, "a2": 2, "b1": 4}
    assert share_out({"a1": 10, "b1": 1}, owner, 8) == {"a1": 7, "b1": 1}
    assert share_out({"a1": 10}, owner, 0) == {"a1": 0}


def test_charges_what_runs_its_limit_and_what_waits_no_more_than_that():
    assert running_mib(128, 12) == 140
    assert idle_mib(128, 12) < running_mib(128, 12)
    assert idle_mib(16, 12) == running_mib(16, 12)


def test_reads_half_of_the_hosts_memory(tmp_path: Path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:        8388608 kB\nMemFree:  1 kB\n")
    assert half_of_host_mib(meminfo) == 4096
    assert half_of_host_mib() > 100


def test_says_what_to_set_where_the_host_does_not_tell(tmp_path: Path):
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\n")
    with pytest.raises(ValueError, match=r"sandboxes\.memory_mib"):
        half_of_host_mib(tmp_path / "meminfo")

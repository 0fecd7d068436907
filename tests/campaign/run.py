"""The campaigns as a command: ``python -m tests.campaign.run deliveries``. A failure prints how to see it again."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.campaign.deliveries import BAD, FAIR, TERRIBLE, deliver
from tests.campaign.roaming import EVERY_S, SILENCE_MAX_S, travel

LINKS = {"terrible": (TERRIBLE, 1.5, 6.0), "bad": (BAD, None, 0.6), "fair": (FAIR, None, 0.25)}
"""How links are, and the bars: seconds of virtual time for the median, and for 99 of 100 deliveries."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign.run")
    parser.add_argument("campaign", choices=["deliveries", "scenarios", "roaming"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, help="deliveries, scenarios, or minutes")
    parser.add_argument("--links", choices=list(LINKS), default="terrible")
    options = parser.parse_args(argv)
    if options.campaign == "deliveries":
        return _deliveries(options.seed, options.count or 1_000_000, options.links)
    if options.campaign == "roaming":
        return _roaming(options.seed, options.count or 1000)
    return _scenarios(options.seed, options.count or 1000)


def _deliveries(seed: int, count: int, links: str) -> int:
    link, p50_s, p99_s = LINKS[links]
    began = time.perf_counter()
    try:
        outcome = deliver(link, seed=seed, deliveries=count)
    except AssertionError:
        traceback.print_exc()
        print(f"again: python -m tests.campaign.run deliveries --seed {seed} --count {count} --links {links}")
        return 1
    took_s = time.perf_counter() - began
    print(
        f"{outcome.deliveries} deliveries at {link.loss:.0%} loss: 0 lost, 0 doubled, 0 out of order; "
        f"p50 {outcome.p50_s:.3f} s, p99 {outcome.p99_s:.3f} s of {outcome.virtual_s:.0f} virtual seconds; "
        f"{outcome.datagrams} datagrams; {took_s:.1f} s, {outcome.deliveries / took_s:.0f} deliveries/s"
    )
    if outcome.p99_s > p99_s or (p50_s is not None and outcome.p50_s > p50_s):
        print(f"too slow: the bars are {p50_s} and {p99_s} s")
        return 1
    return 0


def _roaming(seed: int, count: int) -> int:
    began = time.perf_counter()
    slowest: list[tuple[float, int]] = []
    for number in range(seed, seed + count):
        try:
            travelled = travel(number)
        except AssertionError:
            traceback.print_exc()
            print(f"again: python -m tests.campaign.run roaming --seed {number} --count 1")
            return 1
        slowest.append((max(travelled.to_receipt_s, travelled.to_arrival_s), number))
    slowest.sort()
    times = [silence_s for silence_s, _ in slowest]
    print(
        f"{count} minutes of an address that changes every {EVERY_S:.0f} s: 0 lost, 0 doubled, 0 out of order; the "
        f"longest that a message took: p50 {times[count // 2]:.3f} s, p99 {times[count * 99 // 100]:.3f} s, "
        f"max {times[-1]:.3f} s, in {slowest[-1][1]}; {time.perf_counter() - began:.1f} s"
    )
    if times[-1] > SILENCE_MAX_S:
        print(f"too long: the bar is {SILENCE_MAX_S} s")
        return 1
    return 0


def _scenarios(seed: int, count: int) -> int:
    from tests.campaign.scenarios import play

    began = time.perf_counter()
    failed = 0
    for number in range(seed, seed + count):
        try:
            play(number)
        except Exception:  # whatever it is, it is a finding
            failed += 1
            traceback.print_exc()
            print(f"again: python -m tests.campaign.run scenarios --seed {number} --count 1")
            if failed >= 10:
                break
    print(f"{count} scenarios, {failed} failed, {time.perf_counter() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

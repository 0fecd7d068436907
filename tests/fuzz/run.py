"""`make fuzz`: feed the targets with libFuzzer, guided by the coverage of ocm and of construct.

Each target runs in its own process. A run counts when the asked number of inputs was executed, the guidance
was alive (inputs were found that reach new code) and nothing came out of the target.
"""

from __future__ import annotations

import argparse
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # run as a script, from anywhere

QUICK_DIVISOR: Final = 25
"""How many times fewer inputs than ``--full`` a run has without it."""
QUICK_INPUTS_MAX: Final = 50_000
"""And not more than so many: three minutes in all, on two slow cores."""
INPUT_TIMEOUT_S: Final = 10
MEMORY_MAX_MB: Final = 1024
TAIL_LINES: Final = 25
UNGUIDED: Final = {"url": ["ocm.protocol.text"]}
"""Modules whose branches do not guide a target: its errors show text character by character, which has its own."""


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    target: str
    seed: int
    inputs: int = 0
    inputs_per_s: int = 0
    new_units: int = 0
    coverage: int = 0
    """Branches reached, as libFuzzer counts them."""
    failure: str = ""
    """Why the run does not count; empty when it does."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.child:
        fuzz(options.child, options.flags)
        return 1  # libFuzzer ends the process itself
    from tests.fuzz.targets import TARGETS

    unknown = sorted({*options.target, *(options.replay or ())[:1]} - set(TARGETS))
    if unknown:
        print(f"no such target: {', '.join(unknown)}; --list names them", file=sys.stderr)
        return 2
    if options.list:
        for target in TARGETS.values():
            print(f"{target.name:24} {target.inputs:>12,}")
        return 0
    if options.replay:
        name, data = options.replay
        TARGETS[name].check(bytes.fromhex(data))
        print(f"{name} has no complaint about these {len(data) // 2} bytes")
        return 0
    chosen = options.target or list(TARGETS)
    print(HEADING, flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        started = [pool.submit(run, name, inputs_of(options, name), options.seed) for name in chosen]
        outcomes: list[Outcome] = []
        for one in started:
            outcomes.append(one.result())
            print(row(outcomes[-1]), flush=True)
    failed = [outcome for outcome in outcomes if outcome.failure]
    for outcome in failed:
        print(f"\n{outcome.target} (--seed {outcome.seed}): {outcome.failure}")
    total = sum(outcome.inputs for outcome in outcomes)
    print(f"\n{total:,} inputs, {len(outcomes)} targets, {len(failed)} failed")
    return 1 if failed else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    how_many = parser.add_mutually_exclusive_group()
    how_many.add_argument(
        "--quick", action="store_true", help="about three minutes in all; what one gets without options"
    )
    how_many.add_argument("--full", action="store_true", help="as many inputs as --list says")
    how_many.add_argument("--runs", type=int, help="this many inputs for each target")
    parser.add_argument("--target", action="append", default=[], help="only this target; may be repeated")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="targets at once (2)")
    parser.add_argument("--seed", type=int, help="of the random choices; a new one when left out")
    parser.add_argument("--list", action="store_true", help="name the targets and their inputs with --full")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "HEX"), help="run one input, without atheris")
    parser.add_argument("--child", metavar="TARGET", help=argparse.SUPPRESS)
    parser.add_argument("flags", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def inputs_of(options: argparse.Namespace, name: str) -> int:
    from tests.fuzz.targets import TARGETS

    if options.runs is not None:
        return int(options.runs)
    full = TARGETS[name].inputs
    return full if options.full else min(full // QUICK_DIVISOR, QUICK_INPUTS_MAX)


# --- the parent ---------------------------------------------------------------------------------------


def run(name: str, inputs: int, seed: int | None) -> Outcome:
    """Fuzz one target in a process of its own, from its seeds alone, and judge what it reports."""
    from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    if seed is None:
        seed = random.SystemRandom().randrange(1, 2**31)
    with tempfile.TemporaryDirectory(prefix="ocm-fuzz-") as folder:
        found, seeds, crashes = (Path(folder, part) for part in ("found", "seeds", "crashes"))
        for part in (found, seeds, crashes):
            part.mkdir()
        for number, data in enumerate(target.seeds):
            seeds.joinpath(f"{number:03}").write_bytes(data)
        flags = [
            f"-runs={inputs}",
            f"-seed={seed}",
            f"-max_len={target.size_max}",
            f"-timeout={INPUT_TIMEOUT_S}",
            f"-rss_limit_mb={MEMORY_MAX_MB}",
            f"-artifact_prefix={crashes}/",
            "-print_final_stats=1",
            str(found),
            str(seeds),
        ]
        command = [sys.executable, __file__, "--child", name, "--", *flags]
        start_s = time.monotonic()
        child = subprocess.run(  # our own script
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        took_s = time.monotonic() - start_s
        inputs_that_failed = [path.read_bytes() for path in sorted(crashes.iterdir())]
    output = child.stdout.decode(errors="replace")
    return judge(name, seed, inputs, child.returncode, output, took_s=took_s, crashes=inputs_that_failed)


def judge(
    name: str, seed: int, inputs: int, code: int, output: str, *, took_s: float, crashes: Sequence[bytes]
) -> Outcome:
    """Read a child's report."""
    statistics = {key: int(value) for key, value in re.findall(r"^stat::(\w+):\s+(\d+)$", output, re.MULTILINE)}
    coverage = [int(value) for value in re.findall(r"^#\d+\s.*\bcov: (\d+)", output, re.MULTILINE)]
    executed = statistics.get("number_of_executed_units", 0)
    new_units = statistics.get("new_units_added", 0)
    tail = "\n".join([line for line in output.splitlines() if not line.startswith("INFO:")][-TAIL_LINES:])
    if crashes:
        failure = f"an input fails\n{error_of(output) or tail}\n" + "\n".join(
            f"the input: {data!r}\nagain:     {replay_command(name, data)}" for data in crashes
        )
    elif code != 0:
        failure = f"the process ended with {code}\n{tail}"
    elif executed < inputs:
        failure = f"{executed:,} inputs were executed, {inputs:,} were asked for"
    elif new_units == 0:
        failure = "no input reached new code: is what it runs instrumented?"
    else:
        failure = ""
    rate = statistics.get("average_exec_per_sec", 0) or int(executed / took_s)
    return Outcome(name, seed, executed, rate, new_units, coverage[-1] if coverage else 0, failure)


def error_of(output: str) -> str:
    """The Python error in a child's output: from atheris's heading to libFuzzer's."""
    found = re.search(r"=== Uncaught Python exception: ===\n(.*?)(?:^==\d+==|\Z)", output, re.DOTALL | re.MULTILINE)
    return found[1].strip() if found else ""


def replay_command(name: str, data: bytes) -> str:
    return f".venv/bin/python tests/fuzz/run.py --replay {name} {shlex.quote(data.hex())}"


HEADING: Final = f"{'target':24} {'inputs':>12} {'inputs/s':>10} {'new units':>10} {'coverage':>10}"


def row(outcome: Outcome) -> str:
    return (
        f"{outcome.target:24} {outcome.inputs:>12,} {outcome.inputs_per_s:>10,} {outcome.new_units:>10,} "
        f"{outcome.coverage:>10,}  {'FAILED' if outcome.failure else 'ok'}"
    )


# --- the child ----------------------------------------------------------------------------------------


def fuzz(name: str, flags: Sequence[str]) -> None:
    """Become libFuzzer on one target. Does not return."""
    import atheris
    from atheris.import_hook import instrument_imports
    from atheris.instrument_bytecode import instrument_func

    with instrument_imports(include=["ocm", "construct"], exclude=UNGUIDED.get(name, [])):
        import construct

        from ocm.protocol.wire import classic
        from tests.fuzz.targets import TARGETS

    # What was made with exec is of no module, so the import hook has not seen it.
    derived = (classic.read_header, classic.write_header, classic.read_datagram, classic.write_datagram)
    for made in derived:
        instrument_func(made)
    for function in (*derived, construct.Struct._parse, construct.BytesInteger._parse, classic.Header.decode):
        assert is_instrumented(function), function
    atheris.Setup([sys.argv[0], *flags], TARGETS[name].check)
    atheris.Fuzz()


def is_instrumented(function: object) -> bool:
    """Whether atheris counts the branches of ``function``, which then calls this function of its."""
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and "_trace_branch" in code.co_names


if __name__ == "__main__":
    sys.exit(main())

"""A fuzz run counts only when it was as long as asked, alive and clean; a failure can be run again."""

from __future__ import annotations

import pytest

from tests.fuzz import run, targets

CLEAN = """\
INFO: Seed: 1
#2	INITED cov: 2 ft: 2 corp: 1/1b exec/s: 0 rss: 59Mb
#8	NEW    cov: 4 ft: 4 corp: 2/3b lim: 4 exec/s: 0 rss: 59Mb L: 2/2 MS: 1 CrossOver-
#1000	DONE   cov: 7 ft: 7 corp: 4/7b lim: 600 exec/s: 500 rss: 59Mb
Done 1000 runs in 2 second(s)
stat::number_of_executed_units: 1000
stat::average_exec_per_sec:     500
stat::new_units_added:          6
"""
CRASH = """\
INFO: Instrumenting ocm
#2	INITED cov: 2 ft: 2 corp: 1/1b exec/s: 0 rss: 59Mb

 === Uncaught Python exception: ===
ValueError: boom
Traceback (most recent call last):
  File "x.py", line 1, in check

==17== ERROR: libFuzzer: fuzz target exited
"""


def judge(output: str, *, inputs: int = 1000, code: int = 0, crashes: tuple[bytes, ...] = ()) -> run.Outcome:
    return run.judge("datagram", 1, inputs, code, output, took_s=2.0, crashes=crashes)


def test_a_clean_run_counts() -> None:
    assert judge(CLEAN) == run.Outcome("datagram", 1, 1000, 500, 6, 7)


def test_a_run_that_stopped_early_does_not_count() -> None:
    assert judge(CLEAN, inputs=1001).failure == "1,000 inputs were executed, 1,001 were asked for"


def test_a_run_that_found_no_new_code_does_not_count() -> None:
    assert "instrumented" in judge(CLEAN.replace("added:          6", "added:          0")).failure


def test_a_process_that_died_does_not_count_and_its_last_words_are_shown() -> None:
    failure = judge("INFO: Instrumenting ocm\nno such file\n", code=1).failure
    assert failure == "the process ended with 1\nno such file"


def test_a_failing_input_is_shown_with_its_error_and_one_command_that_runs_it_again() -> None:
    lines = judge(CRASH, code=77, crashes=(b"\x05\xffa",)).failure.splitlines()
    assert lines[1] == "ValueError: boom"
    assert lines[-2:] == [
        r"the input: b'\x05\xffa'",
        "again:     .venv/bin/python tests/fuzz/run.py --replay datagram 05ff61",
    ]


def test_an_empty_input_can_be_run_again() -> None:
    assert run.replay_command("datagram", b"").endswith("--replay datagram ''")


def test_replay_runs_one_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.main(["--replay", "derived_read_header", "00"]) == 0
    assert "no complaint about these 1 bytes" in capsys.readouterr().out
    monkeypatch.setattr(targets, "read_header", int)
    with pytest.raises(ValueError, match="invalid literal"):
        run.main(["--replay", "derived_read_header", "00"])


@pytest.mark.parametrize("arguments", [["--target", "nothing"], ["--replay", "nothing", "00"]])
def test_an_unknown_target_is_misuse(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(arguments) == 2
    assert "no such target: nothing" in capsys.readouterr().err


def test_list_names_every_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(targets.TARGETS)


def test_ordinary_code_is_not_taken_for_instrumented() -> None:
    assert not run.is_instrumented(judge)
    assert not run.is_instrumented(len)

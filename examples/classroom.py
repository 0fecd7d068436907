"""A quiz in a classroom, without async: the teacher's program asks, the pupils' programs answer.

Run it: python examples/classroom.py                               all of them in one process
        python examples/classroom.py 20                            the teacher's desk, for twenty pupils
        python examples/classroom.py URL aiko                      a pupil's desk; the teacher's shows the URL
"""

import sys
from collections.abc import Callable
from threading import Thread

import ocm
import ocm.blocking

QUESTIONS = {"6 * 7": "42", "2 ** 10": "1024", "len('部屋')": "2"}


def teach(room: ocm.blocking.LocalMember, pupils: int) -> None:
    """Ask every question, wait until somebody knows, and keep the score."""
    while len(room.members()) <= pupils:
        room.receive()
    score = dict.fromkeys(room.members()[1:], 0)
    for question, answer in QUESTIONS.items():
        room.send(f"? {question}")
        for event in room:
            if isinstance(event, ocm.Message) and event.text == answer and event.sender.name in score:
                score[event.sender.name] += 1
                print(f"{question} is {answer}: {ocm.safe_text(event.sender.name)} was first")
                break
    print("points:", sum(score.values()))


def learn(url: str, user: str, answer: Callable[[str], str]) -> None:
    """Answer whatever begins with a question mark, until the teacher closes the room."""
    with ocm.blocking.connect(url, user=user) as client, client.join("class") as room:
        for event in room:
            if isinstance(event, ocm.Message) and event.text.startswith("? "):
                room.send(answer(ocm.safe_text(event.text.removeprefix("? "))) or "I do not know")


def whole_class() -> None:
    names = ["aiko", "ben", "chidi"]
    with ocm.blocking.serve("tcrps://127.0.0.1:0") as server:
        with server.create("class", "teacher") as room:
            pupils = [Thread(target=learn, args=[server.url, name, QUESTIONS.__getitem__]) for name in names]
            for pupil in pupils:
                pupil.start()
            teach(room, pupils=len(names))
        for pupil in pupils:  # the teacher has left, so the room is closed and they go home
            pupil.join()


if __name__ == "__main__":
    match sys.argv[1:]:
        case [url, name]:
            learn(url, name, lambda question: input(f"{question} = "))
        case [pupils]:
            with ocm.blocking.serve() as server, server.create("class", "teacher") as room:
                where = f"tcrps://ADDRESS-OF-THIS-COMPUTER:{server.tcp_port}#fp={server.fingerprint}"
                print(f"waiting for {pupils} pupils at {where}")
                teach(room, int(pupils))
        case _:
            whole_class()

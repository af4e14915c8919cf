"""The words that fill the slots of the frames. Every split draws from the whole of each pool."""

from __future__ import annotations

from collections.abc import Mapping

Pools = Mapping[str, tuple[str, ...]]


def pool(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The different words of a text, cut at white space or at `separator`."""
    words = (" ".join(word.split()) for word in text.split(separator))
    return tuple(dict.fromkeys(word for word in words if word))


def _combined(verbs: str, things: str) -> tuple[str, ...]:
    return tuple(f"{verb}_{thing}" for verb in verbs.split() for thing in things.split())


# Variable names are ordinary ones that a small Python vocabulary holds as one token wherever possible.
FILLERS: Pools = {
    "name": pool(
        """args array axis base block cache code color config context copy count data dtype error event field
        filename frame graph group image info key label length log match matrix message method mode model name
        node number price width user version left score step color limit status handler buffer
        attr call case command content default element end file function height input lib local mark nodes
        num obj object offset options order output params path point pos prefix process project request result
        root shape size source start state target text token value weight right total rate""",
    ),
    "attr": pool("name key index data dtype length color width path value shape text size target values type"),
    "item": pool("item x word row char task k elem line c entry part v b"),
    "coll": pool(
        "items words rows chars tasks keys users groups names models labels fields frames images "
        "lines values entries parts files points tokens objects results records paths pages",
    ),
    "func": _combined(
        "load build find check update make read create get parse compute run",
        "items table user index page list lines entry tree rule map cell",
    ),
    "cls": pool(
        "User Item Table Model Graph Handler Page Player Account Config Group Image "
        "Node Parser Reader Worker Point Matrix Order Entry Client Buffer Token Shape",
    ),
    "method": pool("update send load run start stop close reset add remove apply process check write read"),
    "verb": pool("load read update check find build write parse compute remove sort print"),
    "module": pool("os sys re json math time random logging copy string collections threading"),
    "error": pool("KeyError ValueError TypeError IndexError OSError AttributeError RuntimeError"),
    "op": pool("> < >= <= !="),
    "num": pool("1 2 5 7 10 12 20 25 64 100 128 500 0 3 4 6 8 9 15 16 30 32 50 200"),
    "word": pool(
        """red left apple north user_id title first monday open cat summer small debug json metric age table
        street city phone river paper gold train
        blue right banana south item_id tag last friday closed dog winter large verbose xml value size
        chair road country email lake glass silver plane""",
    ),
    "text": pool(
        """hello world; invalid input; file not found; no such key; done; enter a name; the list is empty;
        please wait; too many items; missing field; start the server; loading data; user logged in; wrong
        type; access denied; not ready; all tests passed; saved to disk; page one; bad request;
        good morning; unknown option; cannot open path; out of range; finished; press any key; nothing to
        do; try again; not enough points; unexpected token; stop the worker; reading lines; connection lost;
        bad format; no permission; still running; some checks failed; written to log; chapter two; time is
        up""",
        ";",
    ),
}

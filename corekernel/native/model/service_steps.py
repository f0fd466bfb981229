"""The carriers of the model: `carrier.c`, `handler.c` and the carriers' side of `wait.c`.

As in the client, one path stands for spin, yield and sleep. Every function is one program counter, one shared access.
A carrier's `spent` counts its steps since it was told to park; a compare-and-swap that fails is not counted, since it
fails only when somebody else moved the word in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from corekernel.native.model.state import (
    AGAIN,
    CANCELLED,
    DIED,
    EINTR,
    GAVE_UP,
    NESTED,
    NESTED_REPLY,
    OK,
    REPLY,
    REQUEST,
    SLEEP,
    WAIT,
    Carrier,
    Moves,
    Scenario,
    State,
    may,
    must,
    phase,
    sequence,
    wake_word,
    with_carrier,
    word_of,
)

Step = Callable[[State, int, Carrier, Scenario], Moves]


def step(text: str, s: State, i: int, **changes: object) -> Moves:
    """One carrier moves on."""
    yield must(f"carrier {i}: {text}", with_carrier(s, i, **changes))


# ---- waiting: serve(), hmk_call_back(), hmk_wait_phase() ----


def serve(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In serve: load the command."""
    if c.command == "run":
        return step("looks for a request", s, i, at="load")
    return step("leaves", s, i, at="park")


def load(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In ended: load the word."""
    if phase(s.word) == NESTED if c.nested else not _calls_for(s.word, sc):
        return step("nothing yet", s, i, at="command", seen=s.word)
    to = "nested.collect" if c.nested else "answer"
    return step(f"sees {s.word:#x}", s, i, at=to, seen=s.word, result=AGAIN)


def _calls_for(word: int, sc: Scenario) -> str:
    """What a bound carrier must do about a word: serve a request, drop one given up unseen, or nothing."""
    if phase(word) == CANCELLED and "given up unseen is ignored" not in sc.wrong:
        return "drop"
    return "admit" if phase(word) == REQUEST else ""


def command(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In slumber: load the command; then what the last sleep said."""
    if c.command != "run" and c.nested:
        return step("told to leave a call back", s, i, at="publish", seen=0, result=AGAIN, nested=False, status=DIED)
    if c.command != "run" or c.result == EINTR:
        return step("ends its wait", s, i, at="load" if c.nested else "serve", seen=0, result=AGAIN)
    return step("goes to sleep", s, i, at="futex" if c.seen & SLEEP else "sleep.swap", result=AGAIN)


def sleep_swap(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In slumber: set HMK_SLEEP."""
    if s.word != c.seen:
        return step("SLEEP swap fails", s, i, at="load", seen=0)
    flagged = c.seen | SLEEP
    return step("sets SLEEP", s._replace(word=flagged), i, at="futex", seen=flagged)


def futex(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """futex_wait: compare and block, one step of the kernel."""
    if s.word == c.seen or "futex without compare" in sc.wrong:
        return step("sleeps", s, i, at="sleeping", seen=0)
    return step("futex says EAGAIN", s, i, at="load", seen=0)


def sleeping(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In futex_wait."""
    yield may(f"carrier {i}: wakes spuriously", with_carrier(s, i, at="load"))


# ---- one call: serve_call() ----


def answer(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In answer: load the command once more; then serve or drop what was seen."""
    if c.command != "run" and "rebind before parked" not in sc.wrong:
        return step("leaves it to the next carrier", s, i, at="serve", seen=0)
    return step("answers", s, i, at=_calls_for(c.seen, sc) or "serve")


def admit(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In admit: copy the leg, check the sequence, start the handler."""
    number, bit = sequence(c.seen), 1 << sequence(c.seen)
    forged = number != (c.sequence + 1) & sc.mask
    if not sc.hostile:
        s = s._replace(ran=s.ran | bit, faulty=_wrong_run(s, i, number, forged) or s.faulty)
    if c.buffer and c.buffer != s.bindings:
        s = s._replace(faulty="a handler was given the buffer of another binding")
    first = {"w": _order(sc)[0], "n": "nested.fill", "h": "hang"}.get(s.leg.operation, "publish")
    to = "publish" if forged else first
    return step(f"runs the handler of {number}", s, i, at=to, seen=0, sequence=number, status=OK)


def _wrong_run(s: State, i: int, number: int, forged: bool) -> str:
    if s.ran & 1 << number:
        return "a handler ran twice for one request"
    if s.bound != i:
        return "a handler ran on a slot that its carrier is not bound to"
    if forged or s.leg.request != number:
        return "a handler saw another request's arguments"
    return ""


def hang(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """A handler that takes longer than its caller waits."""
    if phase(s.word) in (CANCELLED, DIED):
        yield from step("ends its long handler", s, i, at="publish")


def drop(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In drop_call: a request given up before its carrier saw it is not run, and its slot is usable again."""
    number = sequence(c.seen)
    if s.word == c.seen:
        ran = s.ran if sc.hostile else s.ran | 1 << number
        s = s._replace(word=word_of(number, REPLY), ran=ran)
    return step("drops a request given up unseen", s, i, at="serve", seen=0, sequence=number)


def _order(sc: Scenario) -> tuple[str, ...]:
    """Condition.wait_for: sample the count, register the caller, test; and three wrong ways."""
    if "sample after test" in sc.wrong:
        return "register", "test", "sample", "publish"
    if "sample after register" in sc.wrong:
        return "register", "sample", "test", "publish"
    if "test before register" in sc.wrong:
        return "sample", "test", "register", "publish"
    return "sample", "register", "test", "publish"


def _after(at: str, sc: Scenario) -> str:
    order = _order(sc)
    return order[order.index(at) + 1]


def sample(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Condition.wait_for: hmk_sequence, before anything else."""
    return step("samples the count", s, i, at=_after("sample", sc), sample=0 if sc.hostile else s.wait & ~1)


def register(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Condition.wait_for: the caller joins the waiters."""
    return step("registers the caller", s._replace(registered=True), i, at=_after("register", sc))


def test(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """Condition.wait_for: test; leave the waiters, or answer WAIT."""
    if s.holds:
        return step("condition holds", s._replace(registered=False), i, at="publish", status=OK, sample=0)
    return step("condition does not hold", s, i, at=_after("test", sc), status=WAIT)


def nested_fill(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_call_back: fill the nested leg, load the word, judge it."""
    return step("calls back", s, i, at="nested.load")


def nested_load(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In enter_nested: load the word."""
    if phase(s.word) in (REQUEST, NESTED_REPLY):
        return step("enters the call back", s, i, at="nested.swap", seen=s.word)
    if phase(s.word) not in (CANCELLED, DIED) and not sc.hostile:
        s = s._replace(faulty="a call back found a phase that nobody may make")
    return step("may not call back", s, i, at="publish", status=GAVE_UP)


def nested_swap(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In enter_nested: NESTED."""
    if s.word != c.seen:
        return step("NESTED swap fails", s, i, at="nested.load", seen=0, spent=max(0, c.spent - 2))
    wake = c.seen & SLEEP and "nested clears sleep" not in sc.wrong
    after = s._replace(word=word_of(c.sequence, NESTED))
    return step("NESTED", after, i, at="nested.wake" if wake else "load", seen=0, nested=True)


def nested_wake(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """futex_wake after SLEEP was seen."""
    return step("wakes the caller", wake_word(s), i, at="load")


def nested_collect(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_call_back: the caller answered, or gave up."""
    status = OK if phase(c.seen) == NESTED_REPLY else GAVE_UP
    return step("call back is over", s, i, at="publish", seen=0, nested=False, status=status)


def publish(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In publish: write the reply into the leg."""
    leg = s.leg if sc.hostile else s.leg._replace(answers=c.sequence, status=c.status, wait_sequence=c.sample)
    return step("writes the reply", s._replace(leg=leg), i, at="reply", status=OK, sample=0)


def reply(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """End of serve_request: load the word; a slot that has died stays dead."""
    if phase(s.word) == DIED and "reply by exchange" not in sc.wrong:
        return step("drops the reply, DIED", s, i, at="serve")
    return step("is about to reply", s, i, at="reply.swap", seen=s.word)


def reply_swap(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """End of serve_request: REPLY; whatever else the caller did meanwhile, the slot is usable again."""
    store, exchange = "reply by store" in sc.wrong, "reply by exchange" in sc.wrong
    if s.word != c.seen and not store and not exchange:
        return step("REPLY swap fails", s, i, at="reply", seen=0, spent=max(0, c.spent - 2))
    sleeps = (c.seen if store else s.word) & SLEEP
    to = "wake" if sleeps and "reply never wakes" not in sc.wrong else "soon"
    return step("REPLY", s._replace(word=word_of(c.sequence, REPLY)), i, at=to, seen=0)


def wake(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """futex_wake after SLEEP was seen."""
    return step("wakes the caller", wake_word(s), i, at="serve")


def soon(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In next_call_soon: load the word, for as long as one likes or not at all."""
    yield from step("looks no further", s, i, at="serve")
    if phase(s.word) == REQUEST:
        yield from step("sees the next request", s, i, at="soon.command", seen=s.word)


def soon_command(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In next_call_soon: load the command, as in answer."""
    if c.command != "run" and "row ignores command" not in sc.wrong:
        return step("leaves it to the next carrier", s, i, at="serve", seen=0)
    return step("goes on in a row", s, i, at="admit")


# ---- parked: hmk_park(), hmk_carrier_main() ----


def park(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_park: the carrier says itself that it has obeyed."""
    return step("PARKED", s, i, at="park.free", command="parked", seen=0)


def park_free(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_park: `parked`; what its binding leaves behind is for the control thread."""
    kept = 0 if "buffer freed by its carrier" in sc.wrong else c.buffer
    return step("is parked", s, i, at="park.load", parked=True, sequence=0, spent=0, buffer=kept)


def park_load(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_carrier_main: load the command; one told RUN and then PARK parks once more."""
    if c.command == "parked":
        return step("stays parked", s, i, at="park.futex")
    if c.command == "leave":
        return step("ends", s, i, at="ended")
    return step("is told something", s, i, at="serve")


def park_futex(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In futex_wait on the command: a private word."""
    return step("waits for a command", s, i, at="park.sleeping" if c.command == "parked" else "park.load")


def park_sleeping(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In futex_wait on the command."""
    yield may(f"carrier {i}: wakes spuriously", with_carrier(s, i, at="park.load"))


# ---- polled: hmk_poller_main(), one thread for all carriers; a carrier's turn ends before another's begins ----


def poll(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In hmk_poller_main: obey an order; or, of a round, look at a slot with a bit, or sweep.

    Whatever else is bound in the same word of the bitmap has the bit swept while this slot is not taken up. An order to
    another carrier has this one visited too.
    """
    if c.ordered:
        yield from step("polled: sees an order", s, i, at="poll.command", ordered=False, seen=0)
    elif not c.parked:
        yield may(f"carrier {i}: polled: visited in passing", with_carrier(s, i, at="poll.command", seen=0))
    if s.bit and c.watched:
        yield from step("polled: finds the bit", s, i, at="poll.word")
    if s.bit and c.watched and "look before sweep" in sc.wrong:
        yield from step("polled: looks", s, i, at="poll.late", seen=s.word)
    elif s.bit and (c.watched or not any(carrier.watched for carrier in s.carriers)):
        yield from step("polled: takes the bit away", s._replace(bit=False), i, at="poll.word" if c.watched else "poll")


def poll_late(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """The mistake: take the bit away after the look."""
    return step("polled: takes the bit away", s._replace(bit=False), i, at="answer")


def poll_command(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In obey: load the command; take the carrier up, look at it if told to, or let it go."""
    if c.command == "run":
        return step("polled: takes it up", s, i, at="poll.word" if c.look else "poll", watched=True, look=False)
    if c.command == "park" or "taken before told" in sc.wrong:
        return step("polled: lets it go", s, i, at="park", watched=False)
    return step("polled: has no command", s, i, at="poll")


def poll_word(s: State, i: int, c: Carrier, sc: Scenario) -> Moves:
    """In look_at: load the word."""
    return step(f"polled: {s.word:#x}", s, i, at="answer", seen=s.word)


STEPS: Mapping[str, Step] = {
    "serve": serve,
    "load": load,
    "command": command,
    "sleep.swap": sleep_swap,
    "futex": futex,
    "sleeping": sleeping,
    "admit": admit,
    "hang": hang,
    "soon": soon,
    "soon.command": soon_command,
    "answer": answer,
    "drop": drop,
    "sample": sample,
    "register": register,
    "test": test,
    "nested.fill": nested_fill,
    "nested.load": nested_load,
    "nested.swap": nested_swap,
    "nested.wake": nested_wake,
    "nested.collect": nested_collect,
    "publish": publish,
    "reply": reply,
    "reply.swap": reply_swap,
    "wake": wake,
    "park": park,
    "park.free": park_free,
    "park.load": park_load,
    "park.futex": park_futex,
    "park.sleeping": park_sleeping,
}
POLLED: Mapping[str, Step] = {
    **STEPS,
    "serve": poll,
    "park.load": poll,
    "poll": poll,
    "poll.command": poll_command,
    "poll.word": poll_word,
    "poll.late": poll_late,
}

BETWEEN_TURNS = ("serve", "poll", "park.load", "dead")


def carriers(s: State, sc: Scenario) -> Moves:
    """The steps of every carrier."""
    steps = POLLED if sc.polled else STEPS
    turn = next((i for i, c in enumerate(s.carriers) if c.at not in BETWEEN_TURNS), -1) if sc.polled else -1
    for i, c in enumerate(s.carriers):
        if c.at not in steps or (turn >= 0 and i != turn):
            continue
        for move in steps[c.at](s, i, c, sc):
            after = move.after.carriers[i]
            if sc.hostile and after.command == "park" and move.must:
                move = must(move.label, with_carrier(move.after, i, spent=after.spent + 1))
            yield move

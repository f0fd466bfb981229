"""The client of the model: `client.c` and the client's side of `wait.c`, one shared access a step.

A spinning or yielding client is one that is at `wait` and not scheduled: between two loads that see the same word it
does nothing, and at any time it may go on to sleep. So one path stands for spin, yield and sleep.

A nap ends a sleep as a signal does, and nobody can count on either: else naps would hide lost wake-ups. But they are
there so that a signal which came before the sleep is noticed, and that must happen: with a signal pending, and only
then, the end of a nap is a step to be counted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from corekernel.native.model.state import (
    AGAIN,
    CANCELLED,
    DIED,
    EINTR,
    IDLE,
    NESTED,
    NESTED_REPLY,
    REPLY,
    REQUEST,
    SLEEP,
    TIMEDOUT,
    UNBOUND,
    WAIT,
    Moves,
    Scenario,
    State,
    may,
    must,
    phase,
    ready,
    sequence,
    wake_word,
    word_of,
)


def ended(s: State, outcome: str, **changes: object) -> State:
    """One call has its outcome."""
    if outcome == "bad frame":
        changes["faulty"] = "the client saw a transition that nobody may make"
    after = s._replace(at="ready", seen=0, result=AGAIN, cancelling=False, **changes)  # type: ignore[arg-type]
    return after._replace(outcomes=(*s.outcomes, outcome))


def begin(s: State, sc: Scenario) -> Moves:
    """hmk_link_ready, hmk_call: the next call, once an abandoned slot was let go.

    The leg of a dead slot is not touched: its carrier may live, and read it.
    """
    if len(s.outcomes) == len(sc.calls):
        yield must("client: no more calls", s._replace(at="done"))
    elif phase(s.word) == DIED and not (s.abandoned and "abandoned misses death" in sc.wrong):
        if "dead slot is filled" in sc.wrong:
            yield must("client: link is ready", s._replace(at="fill", abandoned=False))
        else:
            yield must("client: sees DIED, service gone", ended(s, "no service", abandoned=False))
    elif not s.abandoned or phase(s.word) == REPLY:
        yield must("client: link is ready", s._replace(at="fill", abandoned=False))


def fill(s: State, sc: Scenario) -> Moves:
    """hmk_fill_leg."""
    leg = s.leg._replace(request=(s.sequence + 1) & sc.mask, operation=sc.calls[len(s.outcomes)])
    bit = s.bit or "bit before request" in sc.wrong
    yield must("client: fill the leg", s._replace(leg=leg, bit=bit, at="submit"))


def submit(s: State, sc: Scenario) -> Moves:
    """In submit: load the word and judge it."""
    if phase(s.word) == DIED:
        yield must("client: submit sees DIED", ended(s, "no service"))
    elif not ready(s.word):
        yield must("client: submit refused", ended(s, "bad frame"))
    elif s.word & UNBOUND:
        yield must("client: submit sees UNBOUND", s._replace(at="unbound"))
    else:
        yield must("client: submit loads", s._replace(at="submit.swap", seen=s.word))


def submit_swap(s: State, sc: Scenario) -> Moves:
    """In submit: the compare-and-swap; the point of no return."""
    if s.word != s.seen and "submit by store" not in sc.wrong:
        yield must("client: submit swap fails", s._replace(at="submit", seen=0))
        return
    number = (sequence(s.seen) + 1) & sc.mask
    wake = s.seen & SLEEP and "submit never wakes" not in sc.wrong
    then = "submit.wake" if wake else "wait"
    if sc.polled and "bit before request" not in sc.wrong:
        then = "ring"
    yield must(
        "client: REQUEST",
        s._replace(
            word=word_of(number, REQUEST),
            sequence=number,
            submitted=s.submitted | 1 << number,
            at=then,
            seen=0,
            result=AGAIN,
        ),
    )


def ring(s: State, sc: Scenario) -> Moves:
    """In note_ready: look for the bit."""
    yield must("client: looks for its bit", s._replace(at="wait" if s.bit else "ring.set"))


def ring_set(s: State, sc: Scenario) -> Moves:
    """In note_ready: set the bit."""
    yield must("client: sets its bit", s._replace(bit=True, at="wait"))


def then_wait(s: State, sc: Scenario) -> Moves:
    """futex_wake after SLEEP was seen; then wait for the reply."""
    yield must("client: wake the carrier", wake_word(s)._replace(at="wait", result=AGAIN))


def unbound(s: State, sc: Scenario) -> Moves:
    """The next call must bind first: the control thread answers, or the core says that the service is gone."""
    if s.core == "done":
        yield must("client: bind refused, service gone", ended(s, "no service"))


def wait(s: State, sc: Scenario) -> Moves:
    """In ended: load the word; what await() and slumber() do about it."""
    at = phase(s.word)
    if at == REPLY:
        yield must("client: sees REPLY", s._replace(at="collect", result=AGAIN))
    elif at == DIED:
        yield must("client: sees DIED", ended(s, "died"))
    elif at == NESTED and "call back is dropped" in sc.wrong:
        yield must("client: accepts no call back", ended(s, "ok"))
    elif at == NESTED:
        yield must("client: sees NESTED, serves it", s._replace(at="nested", result=AGAIN))
    elif at not in (REQUEST, NESTED_REPLY):
        yield must("client: sees nonsense", ended(s, "bad frame"))
    elif s.result == EINTR:
        yield must("client: interrupted", s._replace(at="interrupted", result=AGAIN))
    elif s.result == TIMEDOUT:
        yield must("client: deadline passed", s._replace(at="abandon", result=AGAIN))
    else:
        to = "futex" if s.word & SLEEP else "sleep.swap"
        yield must("client: goes to sleep", s._replace(at=to, seen=s.word, result=AGAIN))


def sleep_swap(s: State, sc: Scenario) -> Moves:
    """In slumber: set HMK_SLEEP."""
    if s.word == s.seen or "sleep flag by store" in sc.wrong:
        flagged = s.seen | SLEEP
        yield must("client: sets SLEEP", s._replace(word=flagged, seen=flagged, at="futex"))
    else:
        yield must("client: SLEEP swap fails", s._replace(at="wait", seen=0))


def futex(s: State, sc: Scenario) -> Moves:
    """futex_wait: compare and block, one step of the kernel."""
    if s.word == s.seen or "futex without compare" in sc.wrong:
        yield must("client: sleeps", s._replace(at="sleeping", seen=0))
    else:
        yield must("client: futex says EAGAIN", s._replace(at="wait", seen=0))
    yield from _time_out(s, "wait")


def sleeping(s: State, sc: Scenario) -> Moves:
    """In futex_wait: what can end it beside a wake."""
    yield may("client: wakes spuriously", s._replace(at="wait"))
    if sc.signals:
        yield may("client: EINTR", s._replace(at="wait", result=EINTR))
    if s.signal == "pending" and "call without naps" not in sc.wrong:
        yield must("client: its nap ends", s._replace(at="wait", result=EINTR))
    yield from _time_out(s, "wait")


def _time_out(s: State, to: str) -> Moves:
    if s.cancels:
        yield may("client: ETIMEDOUT", s._replace(at=to, seen=0, result=TIMEDOUT))


def interrupted(s: State, sc: Scenario) -> Moves:
    """HMK_E_INTERRUPTED was returned: hmk_resume or hmk_cancel."""
    if s.signal == "pending":
        yield must("client: learns of the signal", s._replace(at="abandon", cancelling=True, signal=""))
        return
    yield must("client: resumes", s._replace(at="wait"))
    if s.cancels:
        yield may("client: cancels", s._replace(at="abandon", cancelling=True))


def abandon(s: State, sc: Scenario) -> Moves:
    """In abandon: load the word."""
    given_up = [REQUEST, NESTED_REPLY]
    if "cancel ignores nested" not in sc.wrong:
        given_up.append(NESTED)
    if phase(s.word) in given_up:
        yield must("client: abandon loads", s._replace(at="abandon.swap", seen=s.word))
    elif s.cancelling:
        yield must("client: cancelled, answer was there", ended(s, "cancelled", cancels=s.cancels - 1))
    else:
        yield must("client: too late to abandon", s._replace(at="wait"))


def abandon_swap(s: State, sc: Scenario) -> Moves:
    """In abandon: CANCELLED; a carrier that sleeps in a call back is woken."""
    if s.word != s.seen:
        yield must("client: abandon swap fails", s._replace(at="abandon", seen=0))
        return
    outcome = "cancelled" if s.cancelling else "deadline"
    reuse = "cancelled slot is reused" in sc.wrong
    after = ended(s, outcome, abandoned=not reuse, cancels=s.cancels - 1)
    after = after._replace(word=word_of(sequence(s.seen), IDLE if reuse else CANCELLED))
    if phase(s.seen) == NESTED and s.seen & SLEEP:
        after = after._replace(at="abandon.wake")
    yield must("client: CANCELLED", after)


def abandon_wake(s: State, sc: Scenario) -> Moves:
    """futex_wake after the call back's carrier was seen asleep."""
    yield must("client: wake the carrier", wake_word(s)._replace(at="ready"))


def nested(s: State, sc: Scenario) -> Moves:
    """In serve_nested: the handler has run; load the word."""
    if phase(s.word) == NESTED or "nested reply by exchange" in sc.wrong:
        yield must("client: nested handler ran", s._replace(at="nested.swap", seen=s.word))
    else:
        yield must("client: nested call is over", s._replace(at="wait"))


def nested_swap(s: State, sc: Scenario) -> Moves:
    """In serve_nested: NESTED_REPLY, which must not hide a DIED."""
    if s.word != s.seen and "nested reply by exchange" not in sc.wrong:
        yield must("client: NESTED_REPLY swap fails", s._replace(at="nested", seen=0))
        return
    after = s._replace(word=word_of(s.sequence, NESTED_REPLY), seen=0, result=AGAIN)
    yield must("client: NESTED_REPLY", after._replace(at="submit.wake" if s.word & SLEEP else "wait"))


def collect(s: State, sc: Scenario) -> Moves:
    """hmk_collect_leg: the reply must be the one to this request."""
    if s.leg.answers != s.sequence:
        s = s._replace(faulty="a reply was taken for another call's")
    if s.leg.status == WAIT:
        yield must(
            "client: collects WAIT",
            s._replace(at="word.load", wait_sequence=s.leg.wait_sequence, result=AGAIN),
        )
    else:
        yield must("client: collects the reply", ended(s, "ok"))


def word_load(s: State, sc: Scenario) -> Moves:
    """In hmk_wait_word: load the count."""
    if s.wait | 1 != s.wait_sequence | 1:
        yield must("client: count moved, issues again", s._replace(at="fill", result=AGAIN))
    else:
        yield must("client: count has not moved", s._replace(at="word.state", seen=s.wait))


def word_state(s: State, sc: Scenario) -> Moves:
    """In hmk_wait_word: load the state, for DIED."""
    if phase(s.word) == DIED:
        yield must("client: condition died", s._replace(at="fill", seen=0, result=AGAIN))
    elif s.result == EINTR:
        yield must("client: wait interrupted", s._replace(at="word.interrupted", seen=0, result=AGAIN))
    elif s.result == TIMEDOUT:
        yield must("client: wait's deadline passed", ended(s, "deadline", cancels=s.cancels - 1))
    else:
        to = "word.futex" if s.seen & 1 else "word.swap"
        yield must("client: goes to wait", s._replace(at=to, result=AGAIN))


def word_swap(s: State, sc: Scenario) -> Moves:
    """In hmk_wait_word: set bit 0."""
    if s.wait == s.seen or "wait bit by store" in sc.wrong:
        yield must("client: sets bit 0", s._replace(wait=s.seen | 1, seen=s.seen | 1, at="word.futex"))
    else:
        yield must("client: bit 0 swap fails", s._replace(at="word.load", seen=0))


def word_futex(s: State, sc: Scenario) -> Moves:
    """futex_wait on the wait word."""
    to = "word.sleeping" if s.wait == s.seen else "word.load"
    yield must("client: futex_wait on its wait word", s._replace(at=to, seen=0))
    yield from _time_out(s, "word.load")


def word_sleeping(s: State, sc: Scenario) -> Moves:
    """In futex_wait on the wait word."""
    yield may("client: wakes spuriously", s._replace(at="word.load"))
    if sc.signals:
        yield may("client: EINTR", s._replace(at="word.load", result=EINTR))
    if s.signal == "pending" and "wait without naps" not in sc.wrong:
        yield must("client: its nap ends", s._replace(at="word.load", result=EINTR))
    yield from _time_out(s, "word.load")


def word_interrupted(s: State, sc: Scenario) -> Moves:
    """HMK_E_INTERRUPTED was returned from a WAIT."""
    if s.signal == "pending":
        after = ended(s, "cancelled", cancels=s.cancels - 1, signal="")
        yield must("client: learns of the signal", after)
        return
    yield must("client: resumes its wait", s._replace(at="word.load"))
    if s.cancels:
        yield may("client: cancels its wait", ended(s, "cancelled", cancels=s.cancels - 1))


STEPS: Mapping[str, Callable[[State, Scenario], Moves]] = {
    "ready": begin,
    "fill": fill,
    "submit": submit,
    "submit.swap": submit_swap,
    "submit.wake": then_wait,
    "ring": ring,
    "ring.set": ring_set,
    "unbound": unbound,
    "wait": wait,
    "sleep.swap": sleep_swap,
    "futex": futex,
    "sleeping": sleeping,
    "interrupted": interrupted,
    "abandon": abandon,
    "abandon.swap": abandon_swap,
    "abandon.wake": abandon_wake,
    "nested": nested,
    "nested.swap": nested_swap,
    "collect": collect,
    "word.load": word_load,
    "word.state": word_state,
    "word.swap": word_swap,
    "word.futex": word_futex,
    "word.sleeping": word_sleeping,
    "word.interrupted": word_interrupted,
}


def signalled(s: State) -> Moves:
    """The one signal that the program wants to know of: it ends a sleep, and is noted else."""
    s = s._replace(signal="pending")
    to = {"sleeping": "wait", "word.sleeping": "word.load"}.get(s.at)
    yield must("client: SIGNAL", s._replace(at=to, result=EINTR) if to else s)


def client(s: State, sc: Scenario) -> Moves:
    """The client's steps; it may also die at any of them."""
    step = STEPS.get(s.at)
    if step is None:
        return
    yield from step(s, sc)
    if s.signal == "due":
        yield from signalled(s)
    if sc.client_dies:
        yield may("client: DIES", s._replace(at="dead", seen=0, result=AGAIN, wait_sequence=0))


def hostile(s: State, sc: Scenario) -> Moves:
    """A client that writes what it likes into its slot and requeues whoever sleeps there."""
    for number in (0, 1):
        for bits in (REQUEST, REPLY, NESTED, NESTED_REPLY, CANCELLED, REPLY | SLEEP, REQUEST | SLEEP):
            word = word_of(number, bits)
            if word != s.word:
                yield may(f"hostile: writes {word:#x}", s._replace(word=word))
    for wait in (0, 1) if sc.script else ():
        if wait != s.wait:
            yield may(f"hostile: writes wait word {wait}", s._replace(wait=wait))
    for operation in sc.calls:
        if operation != s.leg.operation:
            yield may("hostile: rewrites the leg", s._replace(leg=s.leg._replace(operation=operation)))
    for index, carrier in enumerate(s.carriers):
        if carrier.at == "sleeping":
            carriers = (*s.carriers[:index], carrier._replace(at="requeued"), *s.carriers[index + 1 :])
            yield may("hostile: requeues the sleeper", s._replace(carriers=carriers))

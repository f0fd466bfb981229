"""Who else touches the slot in the model: the control thread, a notifying carrier, and the core.

The control thread binds and unbinds (hmk_pool_bind, hmk_pool_unbind, then hmk_pool_parked until the carrier has left);
only then does it shelve the carrier, and only from the shelf are carriers bound, or ended. It may give the carrier a
buffer for as long as it does not know that the carrier has left;
the notifier changes the condition and calls hmk_notify; the core, told by the host that the service's last thread
is gone, runs hmk_frames_kill.
"""

from __future__ import annotations

from corekernel.native.model.state import (
    DIED,
    REPLY,
    SLEEP,
    UNBOUND,
    Moves,
    Scenario,
    State,
    kick,
    may,
    must,
    phase,
    ready,
    sequence,
    wake_command,
    wake_wait_word,
    wake_word,
    with_carrier,
    word_of,
)

# ---- the control thread ----


def control(s: State, sc: Scenario) -> Moves:
    """The control thread's step."""
    if s.control == "idle":
        yield from _idle(s, sc)
    elif s.control.startswith("unbind"):
        yield from _unbind(s, sc)
    elif s.control.startswith("bind"):
        yield from _bind(s, sc)
    elif s.control.startswith("shrink"):
        yield from _shrink(s, sc)
    if s.buffers and (s.control == "unbind.poll" or (s.control == "idle" and s.bound >= 0)):
        i = s.bound if s.control == "idle" else s.target
        yield may("control: gives a buffer", with_carrier(s, i, buffer=s.bindings)._replace(buffers=s.buffers - 1))


def _idle(s: State, sc: Scenario) -> Moves:
    if s.at in ("dead", "hostile") and not s.forced:
        after = s._replace(forced=True, control="unbind.load" if s.bound >= 0 else "idle")
        yield must("control: its client is gone", after._replace(target=max(s.bound, 0)))
    elif s.at == "unbound":
        yield from _take(s, sc)
    elif s.unbinds and s.bound >= 0:
        after = s._replace(control="unbind.load", target=s.bound, unbinds=s.unbinds - 1)
        yield may("control: unbinds", after)
    if s.control == "idle" and s.shrinks:
        yield from _end(s)


def _take(s: State, sc: Scenario) -> Moves:
    """hmk_pool_take: any carrier on the shelf."""
    for i, c in enumerate(s.carriers):
        if c.shelved:
            after = with_carrier(s, i, parked=False, shelved=False)._replace(control="bind.load", target=i)
            yield must(f"control: takes carrier {i}", after)


def _end(s: State) -> Moves:
    """hmk_pool_shrink: any carrier on the shelf."""
    for i, c in enumerate(s.carriers):
        if c.shelved:
            after = with_carrier(s, i, parked=False, shelved=False)._replace(control="shrink.command", target=i)
            yield may(f"control: ends carrier {i}", after._replace(shrinks=s.shrinks - 1))


def _shrink(s: State, sc: Scenario) -> Moves:
    """end_thread; then make_new, a thread, and, once that has parked, the shelf."""
    i, c = s.target, s.carriers[s.target]
    if s.control == "shrink.command":
        to = "shrink.join" if "ended, not woken" in sc.wrong else "shrink.wake"
        yield must("control: LEAVE", with_carrier(s, i, command="leave")._replace(control=to))
    elif s.control == "shrink.wake":
        yield must("control: wakes it", wake_command(s, i)._replace(control="shrink.join"))
    elif s.control == "shrink.join":
        if c.at == "ended":
            after = with_carrier(s, i, at="park", command="parked")
            yield must("control: joins it, makes another", after._replace(control="shrink.await"))
    elif c.parked:
        yield must("control: shelves it", _shelve(s, i, sc)._replace(control="idle"))


def _shelve(s: State, i: int, sc: Scenario) -> State:
    """shelve: frees what the binding has left behind."""
    kept = s.carriers[i].buffer if "buffer freed by its carrier" in sc.wrong else 0
    return with_carrier(s, i, shelved=True, buffer=kept)


def _bind(s: State, sc: Scenario) -> Moves:
    i = s.target
    if s.control == "bind.load":
        yield must("control: open_slot loads", s._replace(control="bind.swap", control_seen=s.word))
    elif s.control == "bind.swap":
        dead = phase(s.word) == DIED and "open over death" not in sc.wrong
        word = s.word if dead else word_of(sequence(s.word), REPLY)
        after = s._replace(word=word, bound=i, bindings=s.bindings + 1, control_seen=0, control="bind.run")
        after = with_carrier(after, i, sequence=sequence(s.word))
        fails = s._replace(control="bind.load", control_seen=0)
        yield must("control: open_slot swaps", after if s.word == s.control_seen else fails)
    elif s.control == "bind.run":
        look = "binding is not looked at" not in sc.wrong
        yield must("control: RUN", with_carrier(s, i, command="run", look=look)._replace(control="bind.wake"))
    else:
        after = with_carrier(wake_command(s, i), i, ordered=True)._replace(control="idle")
        yield must("control: bound", after._replace(at="fill") if s.at == "unbound" else after)


def _unbind(s: State, sc: Scenario) -> Moves:
    i = s.target
    if s.control == "unbind.load":
        yield from _close_load(s)
    elif s.control == "unbind.swap":
        yield from _close_swap(s, sc)
    elif s.control == "unbind.command":
        after = with_carrier(s, i, command="parked" if "parks only once" in sc.wrong else "park")
        leaves = "rebind before parked" in sc.wrong and not s.forced
        then = "unbind.order" if sc.polled and "order without count" not in sc.wrong else "unbind.poll"
        yield must("control: PARK", after._replace(control="idle" if leaves else then))
    elif s.control == "unbind.order":
        yield must("control: counts an order", with_carrier(s, i, ordered=True)._replace(control="unbind.poll"))
    elif s.carriers[i].parked:
        yield must("control: has its carrier back", _shelve(s, i, sc)._replace(control="idle"))
    elif s.control == "unbind.poll":
        kicked = s if "command without kick" in sc.wrong else kick(s, i)
        if "kick once" in sc.wrong:
            yield must("control: kicks once", kicked._replace(control="unbind.await"))
        elif kicked is not s:
            yield must("control: kicks", kicked)


def _close_load(s: State) -> Moves:
    if ready(s.word):
        yield must("control: close_slot loads", s._replace(control="unbind.swap", control_seen=s.word))
    elif s.forced:
        yield must("control: busy, but forced", s._replace(control="unbind.command"))
    else:
        yield must("control: busy", s._replace(control="idle"))


def _close_swap(s: State, sc: Scenario) -> Moves:
    if s.word != s.control_seen and "close by store" not in sc.wrong:
        yield must("control: close_slot swap fails", s._replace(control="unbind.load", control_seen=0))
        return
    word = s.control_seen & ~SLEEP | UNBOUND
    yield must("control: UNBOUND", s._replace(word=word, bound=-1, control_seen=0, control="unbind.command"))


# ---- a carrier that changes the condition ----


def notifier(s: State, sc: Scenario) -> Moves:
    """The notifier's next step: its script, or the hmk_notify it is in."""
    if s.notifier == "script":
        yield from _script(s, sc)
    elif s.notifier != "dead":
        at, seen, after = _notify(s, s.notifier, s.notifier_seen, sc)
        yield must("notifier: " + s.notifier, after._replace(notifier=at or "script", notifier_seen=seen))


def _script(s: State, sc: Scenario) -> Moves:
    if s.script == len(sc.script):
        return
    word, after = sc.script[s.script], s._replace(script=s.script + 1)
    if word == "s":
        yield must("notifier: condition becomes true", after._replace(holds=True))
    elif word == "c":
        yield must("notifier: another caller consumes it", after._replace(holds=False))
    elif s.registered:
        yield must("notifier: takes the waiter", after._replace(registered=False, notifier="notify.load"))
    else:
        yield must("notifier: nobody waits", after)


def _notify(s: State, at: str, seen: int, sc: Scenario, always: bool = False) -> tuple[str, int, State]:
    """hmk_notify: where its caller goes next ("" out), what it has seen, and the state after."""
    if at == "notify.load":
        return "notify.swap", s.wait, s
    if at == "notify.wake":
        return "", 0, wake_wait_word(s)
    if s.wait != seen:
        return "notify.load", 0, s
    wake = (seen & 1 or always) and "notify never wakes" not in sc.wrong
    return (
        "notify.wake" if wake else "",
        0,
        s._replace(wait=((seen & ~1) + 2) & sc.mask),
    )


# ---- the core ----


def core(s: State, sc: Scenario) -> Moves:
    """The service may die at any step; then the core ends the slot. So does the client when the core has died."""
    if s.core == "watch":
        if sc.service_dies:
            yield may("service: DIES", _vanish(s)._replace(core="kill.load"))
        if sc.core_dies:
            yield may("core: DIES, its client ends the slots", s._replace(core="kill.load"))
    elif s.core == "done":
        if s.control != "dead":
            yield must("service: ends, as its core has", _vanish(s))
    elif s.core == "kill.load":
        yield must("core: kill loads", s._replace(core="kill.exchange", core_seen=s.word))
    elif s.core == "kill.exchange":
        to = "notify.load" if "kill wakes only sleepers" in sc.wrong and not s.word & SLEEP else "kill.wake"
        after = s._replace(word=word_of(sequence(s.core_seen), DIED), core=to, core_seen=0)
        yield must("core: DIED", _kill_only(after, sc))
    elif s.core == "kill.wake":
        yield must("core: wakes the caller", _kill_only(wake_word(s)._replace(core="notify.load"), sc))
    else:
        always = "kill wakes only sleepers" not in sc.wrong
        at, seen, after = _notify(s, s.core, s.core_seen, sc, always)
        yield must("core: " + s.core, after._replace(core=at or "done", core_seen=seen))


def _kill_only(s: State, sc: Scenario) -> State:
    """The mistake: a death that does not notify."""
    skip = "kill without notify" in sc.wrong and s.core == "notify.load"
    return s._replace(core="done") if skip else s


def _vanish(s: State) -> State:
    gone = tuple(c._replace(at="dead", seen=0, sample=0) for c in s.carriers)
    return s._replace(carriers=gone, control="dead", control_seen=0, notifier="dead", notifier_seen=0)


def killed(s: State) -> bool:
    """Whether the core has set DIED."""
    return s.core not in ("watch", "kill.load", "kill.exchange")


def died_was_lost(s: State) -> bool:
    """DIED is final."""
    return killed(s) and phase(s.word) != DIED

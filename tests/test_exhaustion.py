# ---- exhausting


def binds_everything(system: System, tell: Tell) -> dict[str, int]:
    """Opens every service, binds every slot of one, and takes buffers to the limit."""
    for service in system.services:
        system.attachment.session(service)
    _, links = bound_links(system, "cecho", 4096)
    session = system.attachment.session("cecho")
    taken = 0
    try:
        for link in links:
            system.attachment.buffer(session, link, 16 << 20)
            taken += 1
    except TooBig:
        pass
    tell("holding")
    tell.pause()
    return {"slots": len(links), "buffers": taken}


def answers_in_time(box: Box, seconds: float = 10.0) -> None:
    """The core and a service answer somebody else, each by a deadline."""
    give_up = time.monotonic() + seconds
    with stranger(box, one_of_everything) as good:
        assert good.result(seconds) == "all right"
    assert box.ask("status")["name"]
    assert time.monotonic() < give_up


def one_of_everything(system: System, tell: Tell) -> str:
    echo = system.client("echo", timeout=5.0)
    assert echo.echo(b"small") == b"small" and echo.echo(b"large" * 9000) == b"large" * 9000
    assert system.pid in json.loads(system.procmgr.list())
    assert system.pid in {record.pid for record in system.processes()}
    return "all right"


def test_a_client_that_takes_all_it_can_get_keeps_nobody_waiting(box: Box) -> None:
    objects = box.ask("status")["objects"]
    with unharmed(box, ("cecho",)), stranger(box, binds_everything) as attacker:
        attacker.hear(60.0)
        answers_in_time(box)
        assert attacker.result() == {"slots": 4096, "buffers": 16}
    left = eventually(lambda: (found := box.ask("status")["objects"])["buffer"] == objects.get("buffer") or found)
    assert left is True or left.get("buffer", {}).get("bytes", 0) == objects.get("buffer", {}).get("bytes", 0)


def asks_for_many_small_buffers(system: System, tell: Tell) -> int:
    session, links = bound_links(system, "echo", 64)
    taken = 0
    request = {"do": "buffer", "service": "echo", "generation": session.generation, "size": 4096}
    try:
        for number in range(70_000):
            _, fds = system.attachment.ask({**request, "slot": links[number % 64].index})
            os.close(fds[0])
            taken += 1
    except CallError:
        pass
    tell(taken)
    tell.pause()
    return taken


def test_small_buffers_do_not_use_up_the_descriptors_of_the_core(box: Box) -> None:
    with unharmed(box, ("echo",)), stranger(box, asks_for_many_small_buffers) as attacker:
        assert attacker.hear(50.0)["taken"] >= 64
        answers_in_time(box)
        attacker.result()


def floods(system: System, tell: Tell) -> str:
    """Thousands of requests at once, and never reads an answer."""
    channel = system.attachment.channel
    tell("flooding")
    try:
        for serial in range(20_000):
            channel.send({"do": "open", "service": "echo", "after": -1, "serial": serial})
    except ChannelError:
        return "cut off"
    return "let go on"


def test_a_client_that_never_reads_its_answers_is_cut_off(box: Box) -> None:
    with unharmed(box, ("echo",)), stranger(box, floods) as attacker:
        attacker.hear()
        answers_in_time(box)
        assert attacker.result() == "cut off"


def opens_again_and_again(system: System, tell: Tell) -> int:
    for _ in range(2000):
        _, fds = system.attachment.ask({"do": "open", "service": "echo", "after": -1})
        os.close(fds[0])
    tell("opened")
    tell.pause()
    return 2000


def test_repeated_grants_of_one_object_are_recorded_once(box: Box) -> None:
    before = box.ask("status")["objects"]["frames"]
    with stranger(box, opens_again_and_again) as attacker:
        attacker.hear()
        during = box.ask("status")["objects"]["frames"]
    assert during["grants"] - before["grants"] < 20


def waits_for_what_never_comes(system: System, tell: Tell) -> str:
    """Asks to be told of generations to come, thousands of times."""
    channel = system.attachment.channel
    try:
        for serial in range(5000):
            channel.send({"do": "open", "service": "echo", "after": 1 << 40, "serial": serial})
            if serial % 50 == 49:
                while channel.recv(5.0)[0].get("serial") != serial:
                    pass
    except TimeoutError:
        return "all are remembered"
    except ChannelError:
        return "cut off"
    return "refused"


def test_requests_for_generations_to_come_are_not_remembered_without_bound(box: Box) -> None:
    assert result_of(box, waits_for_what_never_comes) in ("refused", "cut off")
    answers_in_time(box)


def attaches_often(count: int) -> Body:
    def body(system: System, tell: Tell) -> int:
        attached: list[System] = []
        for _ in range(count):
            try:
                attached.append(shim.attach(_name))
                attached[-1].attachment.ask({"do": "open", "service": "echo", "after": -1})
            except HmkError:
                break
        tell(len(attached))
        tell.pause()
        return len(attached)

    _name = ""

    def named(system: System, tell: Tell) -> int:
        nonlocal _name
        _name = system.attachment.name or _name
        return body(system, tell)

    return named


def connects(name: str, count: int) -> Body:
    """Attaches as often as it is let, under names of its choice."""

    def body(system: System, tell: Tell) -> int:
        channels: list[Channel] = []
        for _ in range(count):
            try:
                channel = boot.connect(name)
                channel.send({"do": "attach", "abi": 1, "name": "\U0001f600" * 32})
                reply, _ = channel.recv(10.0)
            except (ChannelError, boot.BootError):
                break
            if "error" in reply:
                break
            channels.append(channel)
        tell(len(channels))
        tell.pause()
        return len(channels)

    return body


@pytest.mark.parametrize("count", [100, 1200])
def test_many_attachments_of_one_process_leave_room_for_others(box: Box, count: int) -> None:
    name = box.ask("status")["name"]
    before = box.ask("status")["clients_total"]
    with stranger(box, connects(name, count)) as attacker:
        assert attacker.hear(50.0)["attached"] >= 100 or count > 100
        answers_in_time(box)
    eventually(lambda: box.ask("status")["clients_total"] == before)



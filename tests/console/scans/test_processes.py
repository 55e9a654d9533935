"""The console in two real processes: what is limited is limited over both, and an upload does not care which it meets."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from geomagic_dagster.console.scans.rates import RATES
from geomagic_dagster.guardrails.processes import descendants
from tests.console.scans.conftest import archive
from tests.console.scans.intake_stand_in import intake
from tests.console.scans.test_real_server import Console, _is_locked, wait

pytestmark = pytest.mark.slow


class TwoProcesses(Console):
    def __init__(self, home: Path, **environment: str) -> None:
        super().__init__(home, CONSOLE_PROCESSES="2", **environment)
        self.workers()

    def workers(self) -> list[int]:
        return wait(lambda: len(found := sorted(descendants(self.process.pid))) == 2 and found, "two processes")

    @contextmanager
    def only(self, answering: int) -> Iterator[None]:
        """One of the two answers whatever is asked, since the other is stopped."""
        others = [pid for pid in self.workers() if pid != answering]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
            wait(lambda pid=pid: state_of(pid) == "T", "it to stop")
        try:
            wait(self.answers, "the one that is left")
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    def bad_tokens(self, number: int) -> list[int]:
        good, self.secret = self.secret, "gm_nobody"
        try:
            return [self.call("GET", "/api/scans")[0] for _ in range(number)]
        finally:
            self.secret = good


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ended(console: Console) -> None:
    console.process.send_signal(signal.SIGTERM)
    console.process.wait(60)


@pytest.fixture(scope="module")
def console(tmp_path_factory) -> Iterator[TwoProcesses]:
    console = TwoProcesses(tmp_path_factory.mktemp("home"), CONSOLE_IDLE="1")
    yield console
    ended(console)


def test_wrong_tokens_are_counted_over_both(console):
    most = RATES["bad token"][0]
    first, second = console.workers()
    with console.only(first):
        assert console.bad_tokens(most - 5) == [401] * (most - 5)
    with console.only(second):
        assert console.bad_tokens(8) == [401] * 5 + [429] * 3, "it knows what the other one has counted"
    with console.only(first):
        assert console.bad_tokens(1) == [429]
        assert console.call("GET", "/api/scans")[0] == 200, "who has a token is somebody else"


def test_logins_from_one_address_are_counted_over_both(console):
    most = RATES["login"][0]
    cookie = console.call("GET", "/admin/login/")[1]["Set-Cookie"].split(";")[0]
    form = f"csrfmiddlewaretoken={cookie.partition('=')[2]}&username=&password=".encode()
    said = {"Cookie": cookie, "Content_Type": "application/x-www-form-urlencoded"}
    answers = []
    for worker, number in zip(console.workers(), (most - 3, 6), strict=True):
        with console.only(worker):
            answers += [console.call("POST", "/admin/login/", form, **said)[0] for _ in range(number)]
    assert answers == [200] * most + [429] * 3


def test_senders_are_counted_over_both_and_an_end_makes_room(console):
    content = archive()
    urls = [console.create(len(content)) for _ in range(5)]
    first, second = console.workers()
    senders = []
    for worker, some in ((first, urls[:2]), (second, urls[2:4])):
        with console.only(worker):
            for url in some:
                sender = console.open_patch(url, 0, len(content))
                sender.sendall(content[:1000])
                wait(lambda url=url: _is_locked(console, url), "a sender to be heard")
                senders.append(sender)
    for worker in (first, second):
        with console.only(worker):
            status, headers, said = console.patch(urls[4], content, 0)
            assert status == 503 and headers["Retry-After"] == "5"
            assert "at most 4 uploads at the same moment" in said["error"]
    for sender in senders:
        sender.close()
    wait(lambda: console.patch(urls[4], b"", 0)[0] == 204, "a place")
    for url in urls:
        wait(lambda url=url: console.call("DELETE", url)[0] == 204, "its end")


def test_an_upload_goes_on_in_the_other_process(console):
    content = archive(os.urandom(300_000))
    first, second = console.workers()
    with intake(console.home, console.home / "inbox") as taken:
        with console.only(first):
            url = console.create(len(content))
            assert console.patch(url, content[:100_000], 0)[0] == 204
        with console.only(second):
            assert console.offset(url) == 100_000
            assert console.patch(url, content[100_000:], 100_000)[0] == 204
        assert (console.home / "inbox" / taken[0]).read_bytes() == content


def test_a_process_that_dies_takes_neither_counts_nor_places_with_it(console):
    content = archive()
    url = console.create(len(content))
    first, _ = console.workers()
    assert console.bad_tokens(RATES["bad token"][0] + 1)[-1] == 429
    with console.only(first):
        sender = console.open_patch(url, 0, len(content))
        sender.sendall(content[:1000])
        wait(lambda: _is_locked(console, url), "the sender to be heard")
    os.kill(first, signal.SIGKILL)
    wait(lambda: first not in console.workers(), "another in its place")
    assert console.bad_tokens(1) == [429], "as before"
    wait(lambda: console.patch(url, b"", console.offset(url))[0] == 204, "the place")
    sender.close()
    at = console.offset(url)
    with intake(console.home, console.home / "inbox"):
        assert console.patch(url, content[at:], at)[0] == 204


def test_what_it_does_by_itself_one_process_does_and_then_the_other(tmp_path):
    console = TwoProcesses(tmp_path)
    try:
        locks = [tmp_path / f"console.{name}.lock" for name in ("scans", "webhooks")]

        def holders() -> list[int]:
            said = [lock.read_text() if lock.exists() else "" for lock in locks]
            alive = console.workers()
            return [int(each) for each in said] if all(each and int(each) in alive for each in said) else []

        for pid in set(wait(holders, "each task to be somebody's")):
            os.kill(pid, signal.SIGKILL)
            wait(lambda pid=pid: pid not in console.workers(), "it to be gone")
        assert wait(holders, "somebody else to go on")
    finally:
        ended(console)

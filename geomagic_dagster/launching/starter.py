"""The warm process: it has imported everything that a run needs, and forks a run worker off itself in milliseconds.

Belongs here: the process, its socket, and forking. Does not belong here: who asks it (run_launcher.py), what a
run does. One for each code location; `python -m geomagic_dagster.launching.starter LOCATION MODULE`.

- It asks for nothing of Dagster's inside: what it runs in the fork is the command line `dagster api execute_run`,
  which Dagster's launchers for Docker and Kubernetes run in a container.
- It never starts a thread: a fork copies only one of them, and locks that others held stay locked for ever.
  Where there is one all the same it says so and starts no run; the launcher then falls back to the default.
- Edited code is never run old: before it takes a request, and every second between, it compares the times and
  sizes of the package's files with those that it imported, and starts itself anew. A request that comes
  meanwhile waits in the socket.
- A release whose place a hotfix took, or that was archived, is never run any more: its starter gives its place up at
  once, and ends when its last worker has.
- A worker has a session of its own, and writes where the starter writes. It outlives a starter that is killed:
  the run goes on, and who watches it knows the worker by its own pid (processes.Process). A starter that is asked to
  end (SIGTERM) kills its workers: their runs are found dead at the next start, and go on where they were.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib.util
import json
import logging
import os
import runpy
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from geomagic_dagster.guardrails.logs import LogfmtFormatter
from geomagic_dagster.guardrails.processes import Process, end_session, threads
from geomagic_dagster.launching.preload import preload
from geomagic_dagster.releases.environments import is_in_force

log = logging.getLogger("geomagic.starter")

FOLDER = "starters"
"""Below DAGSTER_HOME; only its owner may enter it."""
LOOK_S = 1.0
"""How often it looks whether the code changed, a worker ended, or nobody needs it any more."""
IDLE_S = 300.0
"""One that a launcher started, rather than the supervisor, ends when nobody asked for so long."""
REQUEST_BYTES = 2**20
INHERITED = "GEOMAGIC_STARTER_INHERITS"


# --- who asks -------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_folder(path: Path) -> Iterator[str]:
    """An address for a socket at a path of any length: the kernel takes 107 bytes and no more."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def socket_of(dagster_home: Path, location: str) -> Path:
    return dagster_home / FOLDER / f"{location}.sock"


class StarterUnavailable(Exception):
    """No worker came of it; the message says why."""


class Forked:
    """A worker that waits for the word to begin."""

    def __init__(self, connection: socket.socket, process: Process) -> None:
        self._connection, self.process = connection, process

    def go(self) -> None:
        """Raises: StarterUnavailable where the worker is gone."""
        try:
            with self._connection:
                self._connection.sendall(b"go\n")
                answer = _line(self._connection)
        except OSError as error:
            answer = repr(error)
        if answer != "going":
            raise StarterUnavailable(f"worker {self.process.pid}: expected it to begin; got {answer!r}")

    def dismiss(self) -> None:
        self._connection.close()


def ask(path: Path, arguments: Sequence[str], run_id: str, timeout_s: float) -> Forked:
    """A worker that will run `dagster api execute_run ARGUMENTS` once told to; until then nothing has happened.

    Raises: StarterUnavailable where there is no starter, or it cannot fork.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        with in_folder(path) as address:
            connection.connect(address)
        connection.sendall(json.dumps({"run_id": run_id, "arguments": list(arguments)}).encode() + b"\n")
        answer = json.loads(_line(connection) or '{"error": "it hung up"}')
        if "error" in answer:
            raise StarterUnavailable(f"{path}: {answer['error']}")
        return Forked(connection, Process.loads(answer["worker"]))
    except (OSError, ValueError) as error:
        connection.close()
        raise StarterUnavailable(f"{path}: {error!r}") from error
    except BaseException:
        connection.close()
        raise


def _line(connection: socket.socket) -> str:
    received = b""
    while not received.endswith(b"\n") and (chunk := connection.recv(65536)):
        received += chunk
        if len(received) > REQUEST_BYTES:
            raise ValueError(f"expected a line of at most {REQUEST_BYTES} bytes")
    return received.decode().rstrip("\n")


# --- the warm process -----------------------------------------------------------------------------


def fingerprint(module_name: str) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every source file of the package that a module is in."""
    spec = importlib.util.find_spec(module_name.partition(".")[0])
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found, waiting = [], folders
    while waiting:
        with contextlib.suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != "__pycache__":
                        waiting.append(entry.path)
                elif entry.name.endswith(".py"):
                    status = entry.stat()
                    found.append((entry.path, status.st_mtime_ns, status.st_size))
    return tuple(sorted(found))


class Starter:
    """Owns the socket and the workers of one code location."""

    def __init__(self, listener: socket.socket, lock: int, path: Path, module_name: str, idle_s: float | None) -> None:
        self.listener, self.lock, self.path, self.module_name, self.idle_s = listener, lock, path, module_name, idle_s
        self.workers: dict[int, str] = {}
        self.broken = ""
        self.has_retired = False
        self.last_asked_s = time.monotonic()
        self.seen = fingerprint(module_name)
        self._signals, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # heard through the pipe, never in the middle of anything

    def warm_up(self) -> None:
        began_s = time.monotonic()
        try:
            failed = preload(self.module_name)
            import dagster._cli.api
            import dagster._core.storage.sqlite_storage  # noqa: F401
        except Exception:
            self.broken = f"expected to import {self.module_name}; got:\n{traceback.format_exc()}"
            log.error("%s no run is forked until its files change", self.broken)
            return
        gc.collect()
        gc.freeze()  # a collection in a worker would look through all of it, and copy its pages: 0.2 s each time
        for name, reason in failed.items():
            log.info("%s: not imported ahead: %s", name, reason)
        if others := threads():
            self.broken = f"expected one thread, so that a fork is safe; got {', '.join(others)} beside it"
            log.error("%s. Something starts it at import; no run is forked", self.broken)
        log.info("warm after %.1f s: %s", time.monotonic() - began_s, self.path)

    def serve(self) -> None:
        """Until SIGTERM, or nobody needs it."""
        while True:
            asked = [] if self.has_retired else [self.listener]
            ready, _, _ = select.select([*asked, self._signals], [], [], LOOK_S)
            if self._signals in ready:
                told = os.read(self._signals, 512)
                if signal.SIGTERM in told or signal.SIGINT in told:
                    return self._end()
            self._reap()
            if not self.has_retired and not is_in_force(Path(sys.prefix)):
                self._retire()
            if self.has_retired:
                if not self.workers:
                    return
                continue
            if fingerprint(self.module_name) != self.seen:
                self._start_anew()
            if self.listener in ready:
                self._answer()
            elif not self.workers and not self._is_needed():
                return self._end()

    def _retire(self) -> None:
        """Whoever asks now gets another starter; one may listen as soon as nobody holds the lock."""
        log.info("%s is not in force any more: no new runs, %d to end", sys.prefix, len(self.workers))
        self.has_retired = True
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.listener.close()
        os.close(self.lock)

    def _is_needed(self) -> bool:
        if not self.path.exists():
            log.info("%s is gone: nobody can ask any more", self.path)
            return False
        return self.idle_s is None or time.monotonic() - self.last_asked_s < self.idle_s

    def _end(self) -> None:
        if not self.has_retired:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
        for pid, run_id in self.workers.items():
            log.warning("run %s: worker %d is killed, since its starter ends", run_id, pid)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            end_session(pid)
        for pid in self.workers:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def _start_anew(self) -> None:
        """The same process with the code of now: workers stay its children, requests wait in the socket."""
        log.info("the code of %s changed: starting anew", self.module_name)
        for descriptor in (self.listener.fileno(), self.lock):
            os.set_inheritable(descriptor, True)
        os.environ[INHERITED] = json.dumps([self.listener.fileno(), self.lock, list(self.workers.items())])
        os.execv(sys.executable, [sys.executable, "-m", "geomagic_dagster.launching.starter", *sys.argv[1:]])

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                end_session(ended.si_pid)  # a worker that was killed: programs that its stages called go on
                code = os.waitstatus_to_exitcode(os.waitpid(ended.si_pid, 0)[1])
                run_id = self.workers.pop(ended.si_pid, "?")
                told = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
                log.log(logging.INFO if code == 0 else logging.WARNING, "run %s: worker ended, %s", run_id, told)

    def _answer(self) -> None:
        connection, _ = self.listener.accept()
        self.last_asked_s = time.monotonic()
        with connection:
            try:
                connection.settimeout(5.0)
                request = json.loads(_line(connection))
                run_id, arguments = str(request["run_id"]), [str(each) for each in request["arguments"]]
                if others := threads():
                    self.broken = f"expected one thread, so that a fork is safe; got {', '.join(others)} beside it"
                if self.broken:
                    log.error("run %s is not started here: %s", run_id, self.broken)
                    connection.sendall(json.dumps({"error": self.broken}).encode() + b"\n")
                    return
                if (pid := os.fork()) == 0:
                    self._be_worker(connection, arguments)
                self.workers[pid] = run_id
                log.info("run %s: worker %d", run_id, pid)
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("a request that is none, or whose asker is gone: %r", error)

    def _be_worker(self, connection: socket.socket, arguments: list[str]) -> None:
        """In the fork: waits for the word, then becomes Dagster's command line. Never returns."""
        code = 1
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.listener.close()
            os.close(self.lock)
            connection.settimeout(60.0)
            connection.sendall(json.dumps({"worker": Process.of(os.getpid()).dumps()}).encode() + b"\n")
            if _line(connection) != "go":  # whoever asked is gone, or thought better of it
                os._exit(0)
            connection.sendall(b"going\n")
            connection.close()
            sys.argv = ["dagster", "api", "execute_run", *arguments]
            runpy.run_module("dagster", run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0 if exit_.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                logging.shutdown()
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)  # nothing that the starter registered for its own end


def _listen(path: Path, wait: bool) -> tuple[socket.socket, int] | None:
    """The socket, and the lock that makes this the only starter of its location; None where there is another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return None
    path.unlink(missing_ok=True)  # of one that was killed
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with in_folder(path) as address:
        listener.bind(address)
    path.chmod(0o600)
    listener.listen(64)
    return listener, lock


def main(arguments: Sequence[str]) -> None:
    """`LOCATION MODULE [--alone]`: alone, it ends when nobody asks for long or another one is there; else it
    belongs to a supervisor, ends with it, and waits as a substitute while another one is there."""
    location, module_name, *options = arguments
    handler = logging.StreamHandler()  # of this logger alone: workers inherit whatever the root logger has
    handler.setFormatter(LogfmtFormatter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    path = socket_of(Path(os.environ["DAGSTER_HOME"]), location)
    is_alone = "--alone" in options
    workers: dict[int, str] = {}
    if inherited := os.environ.pop(INHERITED, None):
        descriptor, lock, said = json.loads(inherited)
        listener, workers = socket.socket(fileno=descriptor), dict(said)
        os.set_inheritable(descriptor, False)
        os.set_inheritable(lock, False)
    elif (own := _listen(path, wait=not is_alone)) is None:
        return
    else:
        listener, lock = own
    starter = Starter(listener, lock, path, module_name, IDLE_S if is_alone else None)
    starter.workers = workers
    starter.warm_up()
    starter.serve()


if __name__ == "__main__":
    main(sys.argv[1:])

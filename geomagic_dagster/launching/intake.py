"""Takes an upload in: puts it into the inbox whole, and starts its run at once.

Belongs here: an upload's way from wherever it is to a run that has started. Does not belong here: HTTP
(intake_server.py), what is in a scan, which release it belongs to (jobs/traffic.py).

The run is one of the code location that has the name of that release. Where that location does not answer, or nobody
knows which release it is, the upload stays in the inbox for the sensors.

Never two runs of one upload, and never none, whatever dies when:

- Before an upload appears in the inbox its name there is claimed (inbox.claimed); the sensor leaves a claimed name
  alone. The claim is a lock that the kernel lets go of when the process ends. So an upload in the inbox is
  either ours, or the sensor's, or has a run.
- The run has the run key, tags and sensor of one that the sensor would have started. Should the intake die after it
  made the run, the sensor asks for the same key; Dagster finds the run, and starts it where it was not.
- It is made here, and not by the webserver's GraphQL: a webserver would go on making a run whose intake, and with it
  the claim, is gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.errors import (
    DagsterCodeLocationLoadError,
    DagsterCodeLocationNotFoundError,
    DagsterUserCodeUnreachableError,
)
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.workspace.context import IWorkspaceProcessContext

from geomagic_dagster.guardrails.tags import RUN_KEY_TAG, UPLOAD_TAG
from geomagic_dagster.guardrails.whole_files import sync_folder, sync_whole
from geomagic_dagster.jobs.assignments import Assignment
from geomagic_dagster.jobs.attempts import ALIVE
from geomagic_dagster.jobs.inbox import (
    HALF_WRITTEN,
    Looks,
    Seen,
    claimed,
    is_upload,
    look_at,
    move_to_free,
    names_like,
    run_key,
    scan_name,
    why_not_whole,
)
from geomagic_dagster.jobs.process_scan import JOB
from geomagic_dagster.jobs.traffic import Traffic
from geomagic_dagster.jobs.upload_sensor import SENSOR, run_request
from geomagic_dagster.releases.routing import RoutingStore, RoutingUnavailable
from geomagic_dagster.scans.files import ARCHIVE_SUFFIX

log = logging.getLogger("geomagic.intake")

RECEIVED_TAG = "geomagic/received"
"""Name and digest of what was received: the same again, while the first is being processed, is the same upload."""
PARTS_LIVE_S = 24 * 3600.0
NOT_THERE = (DagsterCodeLocationLoadError, DagsterCodeLocationNotFoundError)


class Refused(Exception):
    """This is not taken in; one sentence says why and what to do. `status` is that of HTTP."""

    def __init__(self, place: str, *, expected: str, received: str, do: str, status: int = 422) -> None:
        super().__init__(f"{place}: expected {expected}; got {received}. {do}")
        self.status = status


@dataclass(frozen=True)
class TakenIn:
    """Where an upload is now, and its run."""

    upload: str
    run_id: str | None
    """None where no run could be started right now: the sensor will."""
    status: str
    """Of the run, as Dagster calls it: STARTING, QUEUED, ..."""
    is_new: bool = True
    """False where the same had been received already and is being processed."""


class Intake:
    """One inbox, and the table that says whose `process_scan` its uploads run."""

    def __init__(
        self,
        workspace: IWorkspaceProcessContext,
        inbox: Path,
        routing: RoutingStore,
        at: Callable[[str], None] = lambda point: None,
    ) -> None:
        """`at` hears how far an upload has come; tests end the process there."""
        self.instance: DagsterInstance = workspace.instance
        self._workspace, self.inbox, self._routing, self._at = workspace, inbox, routing, at

    # --- from somewhere ---------------------------------------------------------------------------

    def take_in_path(self, path: Path) -> TakenIn:
        """Moves a folder or an archive into the inbox, and starts its run. Raises: Refused."""
        path = path.absolute()
        if not os.path.lexists(path) or not _looks_like_upload(path):
            received = "something else" if os.path.lexists(path) else "nothing there"
            raise Refused(
                str(path),
                expected="a folder or an archive (zip, tar, tar.gz)",
                received=received,
                do="Look at the path.",
            )
        self.inbox.mkdir(parents=True, exist_ok=True)
        if path.parent.resolve() == self.inbox.resolve():
            raise Refused(
                str(path),
                expected="an upload outside of the inbox",
                received="one in it",
                do="It is taken up by itself.",
            )
        with _only_one(path):
            if os.stat(path).st_dev == os.stat(self.inbox).st_dev:
                return self.take_in(path, path.name)
            with self.part() as part:  # another disk: a copy first, which appears in the inbox whole
                shutil.copytree(path, part / path.name) if path.is_dir() else shutil.copyfile(path, part / path.name)
                sync_whole(part / path.name)  # the copy is on its disk before the original goes
                taken = self.take_in(part / path.name, path.name)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            return taken

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A folder in the inbox, on its disk, that nobody takes for an upload; gone afterwards."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        for old in self.inbox.glob(".*.part"):  # of processes that were killed a day ago
            with suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > PARTS_LIVE_S:
                    shutil.rmtree(old, ignore_errors=True)
        part = self.inbox / f".{uuid.uuid4().hex}.part"
        part.mkdir()
        try:
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)

    # --- from beside its place --------------------------------------------------------------------

    def take_in(self, part: Path, name: str, sha256: str | None = None) -> TakenIn:
        """Moves an upload on the inbox's disk to its place in the inbox, and starts its run. Raises: Refused."""
        if why := why_not_whole(part):
            raise Refused(name, expected="a whole upload", received=why, do="Send it again, to its end.")
        received = f"{name} {sha256[:32]}" if sha256 else None
        with ExitStack() as claims:
            claims.enter_context(claimed(self.inbox, name))
            if received and (run := self._run_of({RECEIVED_TAG: received})):
                return TakenIn(run.tags[UPLOAD_TAG], run.run_id, run.status.value, is_new=False)
            self._at("claimed")
            free = self._place(part, name, claims)
            self._at("placed")
            try:
                return self._start(free, received)
            except Exception:  # whoever sent it shall not send it again: it lies there, and the sensor takes it up
                log.exception("%s: expected its run to start; got this. It lies in the inbox and starts later", free)
                return TakenIn(free, None, "WAITING")

    def _start(self, name: str, received: str | None) -> TakenIn:
        """Starts the run of an upload in the inbox, whose name is claimed."""
        seen = look_at(self.inbox / name, Looks())
        try:
            held = Traffic(self.inbox, self._routing, "intake").of(name, run_key(name, seen))
        except (RoutingUnavailable, OSError) as error:
            log.warning("%s: no run yet, since its release cannot be decided: %s", name, error)
            return TakenIn(name, None, "WAITING")
        self._at("assigned")
        try:
            run = self._make_run(name, seen, held, received)
        except (*NOT_THERE, DagsterUserCodeUnreachableError) as error:
            log.warning("%s: no run yet, the sensor of release %s will start it: %s", name, held.release, error)
            return TakenIn(name, None, "WAITING")
        self._at("made")
        run = self.instance.submit_run(run.run_id, self._workspace.create_request_context())
        self._at("submitted")
        return TakenIn(name, run.run_id, run.status.value)

    def _place(self, part: Path, name: str, claims: ExitStack) -> str:
        """Moves an upload into the inbox under this name or one like it, which neither an upload nor a run has."""
        for free in names_like(name):
            if free != name:
                claims.enter_context(claimed(self.inbox, free))
            if self._run_of({UPLOAD_TAG: free}) is None and move_to_free(part, self.inbox / free):
                sync_folder(self.inbox)  # what was answered for is there, also where the power fails now
                return free
        raise AssertionError("names never end")

    def _run_of(self, tags: dict[str, str]) -> DagsterRun | None:
        runs = self.instance.get_runs(RunsFilter(tags=tags, statuses=[DagsterRunStatus.NOT_STARTED, *ALIVE]), limit=1)
        return runs[0] if runs else None

    def _make_run(self, name: str, seen: Seen, held: Assignment, received: str | None) -> DagsterRun:
        """What Dagster's sensor daemon makes of a run request."""
        location = self._code_location(held.release)
        (repository,) = location.get_repositories().values()
        job, sensor = repository.get_full_job(JOB), repository.get_sensor(SENSOR)
        request = run_request(self.inbox, name, seen, held)
        plan = location.get_execution_plan(
            job, request.run_config, step_keys_to_execute=None, known_state=None, instance=self.instance
        )
        return self.instance.create_run(
            job_name=job.name,
            run_id=None,
            run_config=request.run_config,
            status=DagsterRunStatus.NOT_STARTED,
            tags={
                **job.run_tags,
                **request.tags,
                **DagsterRun.tags_for_sensor(sensor),
                **({RECEIVED_TAG: received} if received else {}),
                RUN_KEY_TAG: str(request.run_key),
            },
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=plan.execution_plan_snapshot,
            job_snapshot=job.job_snapshot,
            parent_job_snapshot=job.parent_job_snapshot,
            asset_selection=None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_graph=repository.asset_graph,
        )

    def _code_location(self, name: str) -> CodeLocation:
        try:
            return self._workspace.create_request_context().get_code_location(name)
        except NOT_THERE:  # it was not there when we asked last
            self._workspace.refresh_workspace()
            return self._workspace.create_request_context().get_code_location(name)


def checked_name(name: str) -> str:
    """The name of an archive that may be received. Raises: Refused."""
    is_plain = name == Path(name).name and name.isprintable() and 0 < len(name.encode()) <= 200
    if not is_plain or HALF_WRITTEN.search(name) or not ARCHIVE_SUFFIX.search(name) or not scan_name(name):
        raise Refused(
            "name of the upload",
            expected="a plain file name that ends like an archive (.zip, .tar, .tar.gz, .r3d)",
            received=repr(name[:80]),
            do="Give it such a name.",
            status=400,
        )
    return name


def _looks_like_upload(path: Path) -> bool:
    with os.scandir(path.parent) as entries:
        return any(entry.name == path.name and is_upload(entry) for entry in entries)


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Raises: Refused where another intake takes the same path in at this moment."""
    with ExitStack() as held:
        try:
            descriptor = os.open(path, os.O_RDONLY)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_first = os.path.samestat(os.fstat(descriptor), os.stat(path))
        except (BlockingIOError, FileNotFoundError):
            is_first = False
        if not is_first:
            raise Refused(
                str(path),
                expected="an upload that nobody else takes in",
                received="one that another intake has taken",
                do="Nothing: it is being processed.",
                status=409,
            )
        yield

"""What a cut asks of git.

Belongs here: questions to git, and the commit as a folder. Does not belong here: what a release is (record.py).
"""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from geomagic_dagster.releases.record import Change, ReleaseError

SHOWN = 5


@dataclass(frozen=True)
class Commit:
    """The commit that a release is cut from."""

    sha: str
    branch: str
    committed_s: int
    """Seconds since 1970: the time of every file in the wheel."""


def git(repository: Path, *arguments: str) -> str:
    """What git answers. Raises: ReleaseError with git's own words."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        raise ReleaseError(
            f"git {arguments[0]}",
            expected=f"an answer about {repository}",
            received=done.stderr.strip() or f"exit code {done.returncode}",
            do="A release is cut in a checkout of the project.",
        )
    return done.stdout.rstrip("\n")


def clean_commit(repository: Path) -> Commit:
    """The commit that is checked out. Raises: ReleaseError where anything is not committed."""
    if left := git(repository, "status", "--porcelain").splitlines():
        more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
        raise ReleaseError(
            repository,
            expected="nothing that is not committed: a release is a commit, and can be made again from it",
            received=", ".join(line[3:] for line in left[:SHOWN]) + more,
            do="Commit it, or put it aside with: git stash --include-untracked.",
        )
    sha, seconds = git(repository, "log", "-1", "--format=%H %ct").split()
    return Commit(sha, git(repository, "rev-parse", "--abbrev-ref", "HEAD"), int(seconds))


def person(repository: Path) -> str:
    """Who cuts, as git knows them. Raises: ReleaseError where it does not."""
    return f"{git(repository, 'config', 'user.name')} <{git(repository, 'config', 'user.email')}>"


def changes(repository: Path, since: str, until: str) -> tuple[Change, ...]:
    """The commits that one commit has and another has not, newest first; merges are no changes of their own."""
    about = f"{since}..{until}" if since else until
    lines = git(repository, "log", "--no-merges", "--format=%H%x00%aI%x00%s", about).splitlines()
    return tuple(Change(*line.split("\0")) for line in lines)


def export(repository: Path, commit: str, folder: Path) -> None:
    """Writes the files of a commit, and nothing else that lies in the checkout, into a folder.

    With the same rights everywhere, whatever git's and Python's defaults are: a wheel holds them.
    """
    command = ["git", "-C", str(repository), "-c", "tar.umask=0022", "archive", "--format=tar", commit]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            # Python 3.11.2, that of Debian 12, has no filters yet, and does not ask for one
            archive.extraction_filter = getattr(tarfile, "tar_filter", lambda member, path: member)
            archive.extractall(folder)
        process.stdout.read()  # what fills its last block: git fails where nobody reads it
    if process.returncode != 0:
        raise ReleaseError(
            f"git archive {commit}", expected="the files of the commit", received="an error", do="See above."
        )

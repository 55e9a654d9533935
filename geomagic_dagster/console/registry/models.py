"""What the console keeps of releases: who decided what, and when; the audit trail.

Belongs here: tables. Does not belong here: who gets traffic (the routing table says it, and its history is the
truth), the rules (releases/lifecycle.py), how something is decided (service.py).
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone

from geomagic_dagster.releases.lifecycle import KEPT, SIDES, Standing, State, Traffic


class Release(models.Model):
    """One cut version. What is said of it in releases/<line>/release.toml was copied when it was found there."""

    approvals: models.Manager[Approval]
    changes: models.Manager[Change]
    incidents: models.Manager[Incident]
    staging_tests: models.Manager[StagingTest]

    line = models.CharField(max_length=20, db_index=True)
    version = models.CharField(max_length=20, unique=True)
    commit = models.CharField(max_length=64)
    branch = models.CharField(max_length=200, blank=True)
    manifest_sha256 = models.CharField("manifest", max_length=64)
    lock_sha256 = models.CharField("dependency lock", max_length=64, blank=True)
    python = models.CharField(max_length=40, blank=True)
    cut_by = models.CharField(max_length=200)
    cut_at = models.DateTimeField()
    is_current = models.BooleanField(default=True, help_text="No later version has taken its place in its line.")

    kept = models.CharField(max_length=10, choices=[(state.value, state.value) for state in KEPT], default="cut")
    staged_by = models.CharField(max_length=150, blank=True)
    staged_at = models.DateTimeField(null=True, blank=True)
    tested_by = models.CharField(max_length=150, blank=True)
    tested_at = models.DateTimeField(null=True, blank=True)
    proposed_by = models.CharField(max_length=150, blank=True)
    proposed_at = models.DateTimeField(null=True, blank=True)
    proposal = models.PositiveIntegerField(default=0, help_text="How often it was proposed; approvals are for one.")
    approved_at = models.DateTimeField(null=True, blank=True)
    archived_by = models.CharField(max_length=150, blank=True)
    archived_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=150, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    # Copied from the routing table's history and from Dagster's runs, so that lists are quick: sync.py keeps them.
    traffic = models.CharField(max_length=10, default="none", editable=False)
    flighted_at = models.DateTimeField(null=True, blank=True, editable=False)
    default_at = models.DateTimeField(null=True, blank=True, editable=False)
    first_scan_at = models.DateTimeField("first customer scan", null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-cut_at"]

    def __str__(self) -> str:
        return self.version

    @property
    def standing(self) -> Standing:
        """Where it stands, for the rules of lifecycle.py."""
        traffic: Traffic = self.traffic if self.is_current else "none"  # pyright: ignore[reportAssignmentType]
        return Standing(
            name=self.version,
            kept=State(self.kept),
            traffic=traffic,
            was_default=self.default_at is not None,
            is_archived=self.archived_at is not None,
            is_revoked=self.revoked_at is not None,
        )

    @property
    def state(self) -> State:
        return self.standing.state


class Change(models.Model):
    """A commit that came to customers with a release."""

    release = models.ForeignKey(Release, models.CASCADE, related_name="changes")
    commit = models.CharField(max_length=64)
    title = models.CharField(max_length=500, blank=True)
    committed_at = models.DateTimeField()

    class Meta:
        ordering = ["-committed_at"]
        constraints = [models.UniqueConstraint(fields=["release", "commit"], name="a_commit_is_in_a_release_once")]

    def __str__(self) -> str:
        return f"{self.commit[:8]} {self.title}"


class Approval(models.Model):
    """One person's yes to one proposal of one release, for one side."""

    release = models.ForeignKey(Release, models.PROTECT, related_name="approvals")
    proposal = models.PositiveIntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    side = models.CharField(max_length=12, choices=[(side, side) for side in SIDES])
    reason = models.TextField()
    at = models.DateTimeField(default=timezone.now)
    manifest_sha256 = models.CharField("manifest", max_length=64, help_text="What was approved.")

    class Meta:
        ordering = ["at"]
        constraints = [
            models.UniqueConstraint(fields=["release", "proposal", "user"], name="one_approval_a_person_and_proposal")
        ]

    def __str__(self) -> str:
        return f"{self.user} for {self.side}"


class StagingTest(models.Model):
    """The smoke scans run through a release in staging: what came out."""

    release = models.ForeignKey(Release, models.PROTECT, related_name="staging_tests")
    by = models.CharField(max_length=150)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    passed = models.BooleanField(null=True, help_text="Unknown while it runs.")
    words = models.TextField(blank=True)
    numbers = models.JSONField(default=list, help_text="Scan by scan: what came out, and its numbers.")

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        outcome = {None: "running", True: "passed", False: "failed"}[self.passed]
        return f"{self.release} in staging: {outcome}"


class Incident(models.Model):
    """Something went wrong. While one is open, its release gets no new traffic."""

    release = models.ForeignKey(Release, models.PROTECT, null=True, blank=True, related_name="incidents")
    title = models.CharField(max_length=200)
    opened_by = models.CharField(max_length=150)
    opened_at = models.DateTimeField(default=timezone.now)
    words = models.TextField()
    revision = models.PositiveIntegerField(
        null=True, blank=True, unique=True, help_text="Of the routing table, where a change of it opened the incident."
    )
    closed_by = models.CharField(max_length=150, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    closed_because = models.TextField(blank=True)

    class Meta:
        ordering = ["-opened_at"]

    def __str__(self) -> str:
        return self.title

    @property
    def is_open(self) -> bool:
        return self.closed_at is None


class RoutingSync(models.Model):
    """How far the routing table's history has been copied into the audit trail. One row, which is also the lock
    that every change of the table by the console holds."""

    revision = models.PositiveIntegerField(default=0)


class AppendOnly(Exception):
    """Somebody tried to change or delete what is only ever added to."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"audit trail: expected entries to be added only; got an attempt to {what}. "
            "Add an entry that says what was wrong with the other one."
        )


class AppendOnlyQuerySet(models.QuerySet):
    def update(self, **kwargs: Any) -> int:
        raise AppendOnly("change some")

    def delete(self) -> Any:
        raise AppendOnly("delete some")

    def bulk_update(self, *args: Any, **kwargs: Any) -> int:
        raise AppendOnly("change some")


class AuditEntry(models.Model):
    """Who did what. Never changed, never deleted: not here, and not in the database, which has triggers for it."""

    at = models.DateTimeField(default=timezone.now, db_index=True)
    who = models.CharField(max_length=150, db_index=True, help_text="Login, or whoever the routing table names.")
    role = models.CharField(max_length=80, blank=True, help_text="Their roles when they did it.")
    action = models.CharField(max_length=40, db_index=True)
    object = models.CharField(max_length=200, db_index=True, help_text="What it was done to: release 1.1, scan ...")
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)
    reason = models.TextField(blank=True)
    ip = models.GenericIPAddressField("address", null=True, blank=True)
    revision = models.PositiveIntegerField(
        null=True, blank=True, unique=True, help_text="Of the routing table, where it was changed."
    )

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        ordering = ["-at", "-id"]
        verbose_name = "audit entry"
        verbose_name_plural = "audit trail"
        default_permissions = ("add", "view")

    def __str__(self) -> str:
        return f"{self.who}: {self.action} {self.object}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnly("change one")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        raise AppendOnly("delete one")

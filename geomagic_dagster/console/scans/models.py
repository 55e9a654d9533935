"""What the console keeps of scans: tokens, scans, their runs, what was sent to whom.

Belongs here: tables. Does not belong here: bytes (they lie on disk: uploads.py), what Dagster knows of a run (copied
here by following.py), rules (the services beside this file).
"""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

from django.conf import settings
from django.db import models
from django.utils import timezone


class Scope(models.TextChoices):
    UPLOAD = "upload", "upload: send scans, cancel and read its owner's"
    READ = "read", "read: read its owner's scans and packages"
    ADMIN = "admin", "admin: all of it, with everybody's scans"


class Token(models.Model):
    """What a program shows instead of a password. The secret itself is nowhere: its hash is."""

    name = models.CharField(max_length=80, help_text="What it is for: the app, the partner.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="scan_tokens")
    """Who answers for it: it opens no more than they may do (tokens.py)."""
    digest = models.CharField(max_length=64, unique=True, editable=False)
    hint = models.CharField("begins with", max_length=12, editable=False)
    scopes = models.CharField(max_length=60, default=Scope.UPLOAD)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)

    owner_id: int

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.hint}…)"

    def allows(self, scope: str) -> bool:
        return scope in self.scopes.split(",")


class State(models.TextChoices):
    RECEIVING = "receiving"
    RECEIVED = "received"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


OVER = (State.DONE, State.REJECTED, State.FAILED, State.CANCELLED, State.EXPIRED)
ON_ITS_WAY = (State.RECEIVED, State.QUEUED, State.RUNNING)


class Scan(models.Model):
    """A scan, whichever way it came."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200, help_text="As its sender calls it: any text.")
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, null=True, blank=True)
    token = models.ForeignKey(Token, models.SET_NULL, null=True, blank=True)
    origin = models.CharField(max_length=10, default="api", choices=[("api", "the API"), ("inbox", "the inbox")])
    state = models.CharField(max_length=10, choices=State.choices, default=State.RECEIVING, db_index=True)
    reason = models.TextField(blank=True, help_text="Why it is rejected, failed, or waits.")
    is_cancelling = models.BooleanField(default=False)

    upload = models.CharField(max_length=255, blank=True, db_index=True, help_text="What it is called in the inbox.")
    upload_key = models.CharField(max_length=300, blank=True, db_index=True, help_text="This stay in the inbox.")
    bytes_total = models.BigIntegerField(null=True)
    sha256 = models.CharField(max_length=64, blank=True, help_text="As its sender said.")
    idempotency_key = models.CharField(max_length=200, null=True, blank=True)
    asked = models.CharField(max_length=64, blank=True, help_text="Digest of what came with the idempotency key.")
    webhook_url = models.CharField(max_length=500, blank=True)

    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    received_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    reopened_at = models.DateTimeField(
        null=True, blank=True, help_text="When it was taken up again, as the release that ended it was taken back."
    )
    quarantined_at = models.DateTimeField(
        null=True, blank=True, help_text="When an operator put it aside; its package is for operators since."
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Until when the next bytes have to come.")

    run_id = models.CharField(max_length=36, blank=True)
    release = models.CharField(max_length=40, blank=True)
    version = models.CharField(max_length=40, blank=True)
    flight = models.CharField(max_length=40, blank=True)
    package = models.CharField(max_length=255, blank=True, help_text="Its folder in packages.")

    owner_id: int | None
    token_id: int | None
    runs: models.Manager[Run]
    deliveries: models.Manager[Delivery]

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "idempotency_key"], name="an_idempotency_key_is_one_scan"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_over(self) -> bool:
        return self.state in OVER


class Run(models.Model):
    """A run of Dagster about a scan, as it was when we looked last."""

    run_id = models.CharField(max_length=36, primary_key=True)
    scan = models.ForeignKey(Scan, models.CASCADE, related_name="runs")
    release = models.CharField(max_length=40, blank=True)
    version = models.CharField(max_length=40, blank=True)
    flight = models.CharField(max_length=40, blank=True)
    is_shadow = models.BooleanField(default=False)
    is_taken_back = models.BooleanField(default=False, help_text="It ended before it began: another release took it.")
    taken_up_again = models.PositiveIntegerField(
        null=True,
        help_text="As of this revision of the table its release is taken back: the scan went on elsewhere.",
    )
    status = models.CharField(max_length=20)
    attempt = models.IntegerField(default=1)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.run_id[:8]


class Delivery(models.Model):
    """One message to whoever sent a scan, and every attempt to hand it over."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    scan = models.ForeignKey(Scan, models.CASCADE, related_name="deliveries")
    run_id = models.CharField(max_length=36, blank=True)
    event = models.CharField(max_length=30)
    url = models.CharField(max_length=500)
    body = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    attempts = models.IntegerField(default=0)
    next_at = models.DateTimeField(null=True, db_index=True, help_text="None: delivered, or given up.")
    delivered_at = models.DateTimeField(null=True)
    log = models.JSONField(default=list, help_text="When, and what the other side said.")

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(fields=["scan", "event", "run_id"], name="an_event_is_told_once"),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.host}"

    @property
    def host(self) -> str:
        """Whose it is. What stands behind that may be a secret of its receiver."""
        return urlsplit(self.url).netloc


class Asked(models.Model):
    """How often somebody asked for something in one window of time (rates.py)."""

    key = models.CharField(max_length=64, primary_key=True, help_text="Digest of what, who and when.")
    number = models.IntegerField()
    until_s = models.FloatField(db_index=True, help_text="Then it counts no more (seconds since 1970).")


class Followed(models.Model):
    """Until when Dagster's runs have been looked at; one row."""

    until_s = models.FloatField(default=0.0)

"""Scans: uploads, their pages, their packages."""

from django.apps import AppConfig


class ScansConfig(AppConfig):
    name = "geomagic_dagster.console.scans"
    label = "scans"
    verbose_name = "Scans"

"""Releases, approvals, incidents, the audit trail."""

from django.apps import AppConfig


class RegistryConfig(AppConfig):
    name = "geomagic_dagster.console.registry"
    label = "registry"
    verbose_name = "Releases"

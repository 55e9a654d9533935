"""Django's admin, with the console's own site in place of the default one."""

from django.contrib.admin.apps import AdminConfig


class ConsoleAdmin(AdminConfig):
    default_site = "geomagic_dagster.console.site.ConsoleSite"

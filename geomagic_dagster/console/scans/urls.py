"""Addresses of scans: the API and the pages."""

from django.urls import URLPattern, URLResolver, path

from geomagic_dagster.console.scans import pages
from geomagic_dagster.console.scans.api import not_behind_the_login

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/", not_behind_the_login()),
    path("s/<str:key>", pages.status_by_link, name="scan-link"),
    path("s/<str:key>/room", pages.room_by_link, name="scan-link-room"),
    path("s/<str:key>/files/<str:name>", pages.file_by_link, name="scan-link-file"),
    path("scans/<uuid:pk>/status", pages.status, name="scan-status"),
    path("scans/<uuid:pk>/room", pages.room, name="scan-room"),
    path("scans/<uuid:pk>/files/<str:name>", pages.file, name="scan-file"),
]

"""Every address of the console. All of them need a login but those that say @login_not_required themselves."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from geomagic_dagster.console import views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index")),
    path("healthz", views.health),
    path("session", views.session),
    path("admin/", admin.site.urls),
    path("", include("geomagic_dagster.console.scans.urls")),
]

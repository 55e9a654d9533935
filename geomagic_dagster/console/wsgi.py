"""The console as a WSGI application, for gunicorn."""

import os
from collections.abc import Callable, Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application

SILENCE_S = 10.0
"""After so long without a byte a connection is cut: whoever says only half of a request must not keep a thread."""

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "geomagic_dagster.console.settings")
_django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Django, with a connection that does not wait for ever."""
    if (connection := environ.get("gunicorn.socket")) is not None:
        connection.settimeout(SILENCE_S)
    return _django(environ, start_response)

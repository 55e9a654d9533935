"""The console's settings for tests: a home that is thrown away, cheap password hashes.

Belongs here: what must be known before Django starts. Does not belong here: what a test sets for itself.
"""

import atexit
import os
import shutil
import tempfile
from unittest.mock import patch

_home = tempfile.mkdtemp(prefix="geomagic-console-")
atexit.register(shutil.rmtree, _home, ignore_errors=True)
_ours = ("GEOMAGIC_", "DATABASE_URL")
with patch.dict(os.environ):
    for _name in [name for name in os.environ if name.startswith(_ours)]:
        del os.environ[_name]
    os.environ["GEOMAGIC_HOME"] = _home
    os.environ["GEOMAGIC_RECORDS"] = os.path.join(_home, "releases")  # not those that were cut of this project
    from geomagic_dagster.console.settings import *  # noqa: F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]

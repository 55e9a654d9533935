"""Django's settings of the console.

Belongs here: how the console itself is set up, and the variables that only it has. Does not belong here: where
the installation's places are (definitions.py says it), what anybody may do (roles.py).

    GEOMAGIC_CONSOLE_HOSTS   names under which browsers reach it, comma separated (default: this machine only)
    GEOMAGIC_CONSOLE_ORIGINS  sites whose pages may call the API from a browser, comma separated (default: none)
    GEOMAGIC_CONSOLE_HTTPS   "1" behind a proxy that speaks https: cookies and redirects are then https only
    GEOMAGIC_RECORDS         where cut releases are recorded (default: releases/ of the checkout)
    GEOMAGIC_DAGSTER_URL     where the console itself finds Dagster's webserver (default: http://127.0.0.1:3000)
    GEOMAGIC_DAGSTER_PAGES   where people find it, where that is elsewhere: https://NAME/dagster
    GEOMAGIC_WEBHOOKS_PRIVATE  "1": messages to senders may go into the installation's own network
    GEOMAGIC_KEEP_UPLOADS_DAYS  after so many days uploads of scans that are over are removed (default: never)
    DATABASE_URL             another database than $GEOMAGIC_HOME/console.sqlite3, say postgres://...
"""

import os
from pathlib import Path

import dj_database_url

from geomagic_dagster.console.origins import ANSWERED_WITH, ASKED_WITH, allowed_origins
from geomagic_dagster.console.periods import kept_days
from geomagic_dagster.console.secret import secret_key
from geomagic_dagster.definitions import home_from, places_from

# --- where things lie ------------------------------------------------------------------------------
HOME = home_from(os.environ)
PLACES = places_from(os.environ)
"""Read it as `django.conf.settings.PLACES`: tests put another one there."""

REPOSITORY = Path(__file__).parents[2]
WEBHOOKS_MAY_BE_PRIVATE = os.environ.get("GEOMAGIC_WEBHOOKS_PRIVATE") == "1"
UPLOADS_KEPT_DAYS = kept_days(os.environ.get("GEOMAGIC_KEEP_UPLOADS_DAYS", ""))
"""0: for ever. What is removed cannot be brought back, so that nobody but the installation decides it."""
RELEASES = Path(os.environ.get("GEOMAGIC_RECORDS") or REPOSITORY / "releases").absolute()
"""Where cut releases are recorded: a folder of the checkout."""

DAGSTER_URL = os.environ.get("GEOMAGIC_DAGSTER_URL") or "http://127.0.0.1:3000"
DAGSTER_PAGES = os.environ.get("GEOMAGIC_DAGSTER_PAGES", "")

SECRET_KEY = secret_key(HOME / "console.secret")
DATABASES = {
    "default": dj_database_url.parse(
        os.environ.get("DATABASE_URL") or f"sqlite:///{HOME / 'console.sqlite3'}",
        conn_max_age=60,
        conn_health_checks=True,  # a database that was started again costs nobody an answer
    )
}
if "sqlite3" in DATABASES["default"].get("ENGINE", ""):
    # Readers never wait for a writer; a writer waits its turn from its first statement on, so that none is refused.
    DATABASES["default"]["OPTIONS"] = {
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
    }
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},  # it forgets some where there are more; how often somebody asked, too
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- what it is made of ----------------------------------------------------------------------------
INSTALLED_APPS = [
    "geomagic_dagster.console.apps.ConsoleAdmin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "corsheaders",
    "geomagic_dagster.console.registry",
    "geomagic_dagster.console.scans",
]
MIDDLEWARE = [
    "corsheaders.middleware.CorsMiddleware",  # first: a browser asks before it sends, and takes no redirect for it
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "geomagic_dagster.console.headers.careful",  # after the one that answers with our own files, which need no limits
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",  # every page, but those that say @login_not_required
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",  # last: it turns too many failed logins into its own answer
]
ROOT_URLCONF = "geomagic_dagster.console.urls"
WSGI_APPLICATION = "geomagic_dagster.console.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [os.path.join(os.path.dirname(__file__), "templates")],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [os.path.join(os.path.dirname(__file__), "static")]
WHITENOISE_USE_FINDERS = True  # straight from the packages: nothing to collect before a start
WHITENOISE_ALLOW_ALL_ORIGINS = False  # our pages need no others, and others need not ours
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = ["geomagic_dagster.console.formats"]

# --- who gets in -----------------------------------------------------------------------------------
DEBUG = False
ALLOWED_HOSTS = [
    name.strip()
    for name in os.environ.get("GEOMAGIC_CONSOLE_HOSTS", "localhost,127.0.0.1,[::1]").split(",")
    if name.strip()
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # first: whoever failed too often is not even asked for a password
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
AUTH_PASSWORD_VALIDATORS[1]["OPTIONS"] = {"min_length": 12}  # pyright: ignore[reportArgumentType]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]  # nobody can lock somebody else out from elsewhere
AXES_RESET_ON_SUCCESS = True
AXES_LOCKOUT_TEMPLATE = "console/locked_out.html"
AXES_ENABLE_ADMIN = False
AXES_CLIENT_IP_CALLABLE = "geomagic_dagster.console.client.counted_as"
AXES_VERBOSE = False

SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
IS_HTTPS = os.environ.get("GEOMAGIC_CONSOLE_HTTPS") == "1"
if IS_HTTPS:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = ["^healthz$"]  # asked on this machine, by whoever watches over the process
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = False  # the neighbours' names are not ours to promise for
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    CSRF_TRUSTED_ORIGINS = [f"https://{name}" for name in ALLOWED_HOSTS]

# --- pages of other sites --------------------------------------------------------------------------
# Of the API alone, and without cookies: what calls it from a browser shows a token, as every program does.
CORS_ALLOWED_ORIGINS = allowed_origins(os.environ.get("GEOMAGIC_CONSOLE_ORIGINS", ""))
CORS_URLS_REGEX = r"^/api/"
CORS_ALLOW_CREDENTIALS = False
CORS_ALLOW_METHODS = ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"]
CORS_ALLOW_HEADERS = ASKED_WITH
CORS_EXPOSE_HEADERS = ANSWERED_WITH
CORS_PREFLIGHT_MAX_AGE = 600

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"without_keys": {"()": "geomagic_dagster.console.logs.WithoutKeys"}},
    "formatters": {"logfmt": {"()": "geomagic_dagster.guardrails.logs.LogfmtFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["without_keys"], "formatter": "logfmt"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"geomagic": {"level": "INFO"}},
}

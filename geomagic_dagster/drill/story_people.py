"""The people of the story, each with a browser's session in the console.

Belongs here: logging in, pressing the button of an action, reading a page. Does not belong here: who does what when
(story.py).
"""

from __future__ import annotations

import html
import re
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from typing import Any

from geomagic_dagster.drill.story_site import Site, expect

PASSWORD = "a walk through the room, slowly"
CSRF = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')
REFUSED = re.compile(r'class="errornote" role="alert">(.*?)</p>', re.DOTALL)


class Person:
    """Somebody with a role, who logs in when first needed."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self._browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self._is_in = False

    @classmethod
    def create(cls, site: Site, name: str, role: str) -> Person:
        """Makes the user on the command line, as whoever runs the machine does."""
        arguments = ("console", "create-user", name, "--role", role, "--email", f"{name}@example.org")
        done = subprocess.run(
            [site.python, "-m", "geomagic_dagster.cli", *arguments], input=f"{PASSWORD}\n",
            cwd=site.checkout, env=site.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        expect(done.returncode == 0, f"user {name} made", done.stdout + done.stderr)
        return cls(site, name)

    def does(self, action: str, target: str, reason: str, **fields: Any) -> None:
        """Presses the button of an action; it has to work."""
        status, page = self._act(action, target, reason, fields)
        expect(status == 200, f"{self.name}: {action} {target} to be done", f"{status}: {_said(page)}")

    def is_refused(self, action: str, target: str, reason: str, **fields: Any) -> str:
        """Presses the button of an action; it has to be refused. Returns: the words."""
        status, page = self._act(action, target, reason, fields)
        expect(status in (403, 409), f"{self.name}: {action} {target} to be refused", status)
        return _said(page)

    def state(self, version: str) -> str:
        """Where a release stands, as the list of releases shows it."""
        page = self.page("admin/registry/release/")
        match = re.search(rf">{re.escape(version)}</a>.*?state-(\w+)", page, re.DOTALL)
        expect(match, f"release {version} in the list", _said(page)[:500])
        assert match
        return match[1]

    def page(self, path: str) -> str:
        self._log_in()
        status, page = self._ask(path)
        expect(status == 200, f"{self.name}: the page {path}", status)
        return page

    def _act(self, action: str, target: str, reason: str, fields: dict[str, Any]) -> tuple[int, str]:
        self._log_in()
        path = f"admin/do/{action}/" + (f"{target}/" if target else "")
        status, page = self._ask(path)
        if status != 200:
            return status, page
        return self._ask(path, {"reason": reason, **fields}, _token(page))

    def _log_in(self) -> None:
        if not self._is_in:
            _, page = self._ask("admin/login/")
            status, page = self._ask("admin/login/", {"username": self.name, "password": PASSWORD}, _token(page))
            expect(status == 200 and "log out" in page.lower(), f"{self.name} logged in", f"{status}: {_said(page)}")
            self._is_in = True

    def _ask(self, path: str, form: dict[str, Any] | None = None, token: str = "") -> tuple[int, str]:
        url = self.site.url("console", path)
        data = urllib.parse.urlencode(form | {"csrfmiddlewaretoken": token}).encode() if form is not None else None
        request = urllib.request.Request(url, data, {"Referer": url})
        try:
            with self._browser.open(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")


def _token(page: str) -> str:
    match = CSRF.search(page)
    expect(match, "a form with a token", _said(page)[:500])
    assert match
    return match[1]


def _said(page: str) -> str:
    """The refusal on a page, or what can be read of it."""
    found = REFUSED.search(page)
    text = found[1] if found else re.sub(r"(?s)<(script|style).*?</\1>", " ", page)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", text).split()))[:1500]

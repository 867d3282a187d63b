"""Asking the fake by plain HTTP, as simply as can be: the tests of the fake know no client of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from tests.iys.fake import FakeIys

BRAND = "/sps/700001/brands/600001"


@dataclass
class Asker:
    """Somebody with a token. Before each request it lets a second pass, so that no limit is in its way."""

    http: httpx.Client
    fake: FakeIys
    username: str = "acme"
    password: str = "secret"  # noqa: S105 - made up
    token: str = field(default="", repr=False)

    def sign_in(self) -> str:
        """Get a token by password; gives the refresh token."""
        body = {"grant_type": "password", "username": self.username, "password": self.password}
        granted = self.http.post("/oauth2/token", json=body).json()
        self.token = granted["access_token"]
        refresh: str = granted["refresh_token"]
        return refresh

    def ask(
        self, path: str, method: str = "GET", *, json: object = None, query: Mapping[str, object] | None = None
    ) -> httpx.Response:
        """Ask with a token."""
        if not self.token:
            self.sign_in()
        self.fake.advance(1.0)
        return self.at_once(path, method, json=json, query=query)

    def at_once(
        self, path: str, method: str = "GET", *, json: object = None, query: Mapping[str, object] | None = None
    ) -> httpx.Response:
        """Ask without letting time pass."""
        given = {name: str(value) for name, value in (query or {}).items()}
        headers = {"authorization": f"Bearer {self.token}"}
        return self.http.request(method, path, params=given, json=json, headers=headers)

    def changes(self, **query: object) -> httpx.Response:
        """Ask for a page of the first brand's feed."""
        return self.ask(f"{BRAND}/consents/changes", query=query)

    def recipients(self, **query: object) -> list[str]:
        """Read a whole feed by its cursors; gives the recipients in order."""
        found: list[str] = []
        while (answer := self.changes(**query)).status_code == httpx.codes.OK and answer.json()["list"]:
            found += [row["recipient"] for row in answer.json()["list"]]
            query["after"] = answer.json()["after"]
        return found

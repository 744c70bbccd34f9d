"""How a database is reached: at a URL, directly or through a tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from sqlalchemy.engine import make_url

from mirror_assets.mirroring.loopback import LOOPBACK
from mirror_assets.mirroring.sources.tunnel import Tunnel


@dataclass(frozen=True)
class Address:
    """A SQLAlchemy URL, which through a tunnel is the SSH host's view of the database.

    ``form`` says how it was configured, for people.
    """

    url: str = field(repr=False)
    tunnel: Tunnel | None = None
    form: str = "a URL"

    @property
    def at_once(self) -> Address:
        """The same for whoever cannot wait: one attempt."""
        if self.tunnel is None:
            return self
        return replace(self, tunnel=replace(self.tunnel, attempts=1))

    @property
    def way(self) -> str:
        """The way to it, for people."""
        if self.tunnel is None:
            return f"directly, by {self.form}"
        return f"through {self.tunnel.host.where}, by {self.form}"

    @contextmanager
    def dialled(self) -> Iterator[str]:
        """A URL to connect to, as long as this lasts."""
        if self.tunnel is None:
            yield self.url
            return
        with self.tunnel.open() as opened:
            yield self.at(opened.port)

    def at(self, port: int) -> str:
        """The URL at a tunnel's local port.

        Its host stays the name that the server's certificate must bear; ``hostaddr``, libpq's own
        word, is what is connected to.
        """
        there = make_url(self.url).set(port=port).update_query_dict({"hostaddr": LOOPBACK})
        return there.render_as_string(hide_password=False)

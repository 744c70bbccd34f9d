"""What can go wrong, in one shape: what happened, where, what to do next, and if time cures it.

Messages are our own sentences. They never carry a row's values, a URL's password or a driver's
text: raise them ``from None`` at the engine's edge, because Dagster stores exception chains.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)


class MirrorError(Exception):
    """A fault with its place and remedy.

    ``transient`` says whether trying again, unchanged, may succeed.
    ``resource`` is the MIRROR_ERRORS word: ``DB`` source, ``GCS`` landing, ``BQ`` warehouse.
    """

    transient = False
    kind = "error"
    resource = "DB"

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """One line for people: place, fact, next step."""
        place = f"{self.where}: " if self.where else ""
        next_step = f". Next: {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{next_step}"

    def at(self, where: str) -> MirrorError:
        """The same fault with its place filled in when it had none."""
        if self.where:
            return self
        return type(self)(self.what, where=where, remedy=self.remedy)


class PermanentError(MirrorError):
    """Trying again unchanged cannot help."""


class TransientError(MirrorError):
    """Trying again may help: a dropped connection, a refresh that landed mid-way."""

    transient = True


class CatalogError(PermanentError):
    """A catalog file is wrong: names file, table, field and the allowed values."""

    kind = "catalog"


class SettingsError(PermanentError):
    """The environment is incomplete or unsafe."""

    kind = "settings"


class UnsupportedType(PermanentError):  # noqa: N818 - the kinds read as nouns
    """A source column has a type nobody has mapped."""

    kind = "unsupported_type"
    column: str | None = None


class SourceFault(PermanentError):  # noqa: N818
    """The source refused: rights, a missing table, a broken definition."""

    kind = "source"


class SourceUnavailable(TransientError):  # noqa: N818
    """The source could not be reached or hung up."""

    kind = "source_unavailable"


class SshUnavailable(SourceUnavailable):
    """The SSH host did not answer, or hung up."""

    kind = "ssh_unavailable"


class SshRefused(SourceFault):
    """The SSH host refused, or we refused it: a wrong key, on either side."""

    kind = "ssh_refused"


class SourceLocked(TransientError):  # noqa: N818
    """Somebody holds a lock on the table for longer than we wait; the connection is fine."""

    kind = "source_locked"


class BackupFailed(TransientError):  # noqa: N818
    """A backup could not be made, restored or reached."""

    kind = "backup"


class RunStopped(PermanentError):  # noqa: N818
    """Somebody ended the run while it waited."""

    kind = "stopped"


class RefreshLanded(TransientError):  # noqa: N818
    """A table was rebuilt, or published again, while it was being read."""

    kind = "refresh_landed"


class RefreshIncomplete(TransientError):  # noqa: N818
    """The vendor's rebuild is under way or stopped half-way."""

    kind = "refresh_incomplete"


class WrongDay(PermanentError):  # noqa: N818
    """A partition was asked for that the source no longer holds and no export remembers."""

    kind = "wrong_day"


class LandingFault(TransientError):  # noqa: N818
    """An export could not be written or read back."""

    kind = "landing"
    resource = "GCS"


class StorageRefused(PermanentError):  # noqa: N818
    """Cloud Storage does not let us read or write: credentials or permissions."""

    kind = "storage"
    resource = "GCS"


class ExportCorrupt(PermanentError):  # noqa: N818
    """An export's files do not match its manifest."""

    kind = "export_corrupt"
    resource = "GCS"


class RowsUnaccounted(TransientError):  # noqa: N818
    """Loaded and rejected rows do not add up to the source's rows."""

    kind = "rows_unaccounted"
    resource = "BQ"


class CoverageTooLow(PermanentError):  # noqa: N818
    """More rows were rejected than the catalog allows."""

    kind = "coverage"
    resource = "BQ"


class VolumeDropped(PermanentError):  # noqa: N818
    """Far fewer rows than in the previous partition."""

    kind = "volume"
    resource = "BQ"


class DriftRefused(PermanentError):  # noqa: N818
    """The source's schema changed in a way the warehouse table cannot follow."""

    kind = "drift"
    resource = "BQ"


class WarehouseFault(TransientError):  # noqa: N818
    """The warehouse refused or could not be reached."""

    kind = "warehouse"
    resource = "BQ"


class WarehouseRefused(PermanentError):  # noqa: N818
    """The warehouse will refuse the same thing again: rights, names, a value, a setting."""

    kind = "warehouse"
    resource = "BQ"


class PublicationPending(TransientError):  # noqa: N818
    """What is published was written down and not carried out to its end: who publishes next does
    that first, with the files that were staged for it. Or it was sent, and no answer came.
    """

    kind = "pending"
    resource = "BQ"


class ProofImpossible(PermanentError):  # noqa: N818
    """A partition cannot be compared with anything."""

    kind = "proof"
    resource = "BQ"


class InputMissing(PermanentError):  # noqa: N818
    """A table that is read was not published for the day."""

    kind = "input"
    resource = "BQ"


class StaleRefresh(PermanentError):  # noqa: N818
    """A newer refresh is already published for this partition, or today's never came."""

    kind = "stale_refresh"


@contextmanager
def placed(where: str) -> Iterator[None]:
    """A complaint of what the environment says, with the variables that it is about."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(error.what, where=where, remedy=error.remedy) from None


def reason(error: BaseException) -> str:
    """What the system says of an error; its class where only its text would tell more, because
    that may quote rows.
    """
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else type(error).__name__


def at_edge(error: Exception, where: str = "") -> MirrorError:
    """An error as it may leave the engine: one of ours, placed, without the chain and the frames
    it was raised with, because those hold rows.
    """
    own = error if isinstance(error, MirrorError) else _unexpected(error)
    own.__cause__ = own.__context__ = None
    return own.with_traceback(None).at(where)


def _unexpected(error: Exception) -> MirrorError:
    """A fault of our own code, told by its class and place only: its text may quote rows."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    _log.error("unexpected %s at %s", type(error).__name__, place)
    return PermanentError(
        f"unexpected {type(error).__name__} at {place}",
        remedy="this is a defect of the mirror: report it with this line",
    )

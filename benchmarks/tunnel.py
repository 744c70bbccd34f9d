"""Mirroring through an SSH tunnel, held against the same without one: both ends on this machine."""

from dataclasses import replace

from benchmarks import data
from benchmarks.config import OURS, ROOT, ROWS
from benchmarks.homes import Home, home
from benchmarks.sections import Section, at_least, figures
from benchmarks.timing import Case, in_turns, ratio
from mirror_assets.sample.sshd import SshServer

_SYSTEMS = {"mysql": "MySQL", "postgresql": "PostgreSQL"}


def tunnel() -> Section:
    """Full mirrors and exports in turns, directly and through the tunnel."""
    folder = ROOT / "sshd"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    server = SshServer(folder)
    with server.running():
        cases, pairs = [], []
        for kind, system in _SYSTEMS.items():
            place = home(kind, data.big(kind, ROWS), [data.BIG])
            for mode in ("export", "mirror"):
                direct = _case(f"{system}: {mode}, directly", mode, kind, place)
                name = f"{system}: {mode}, through the tunnel"
                through = replace(
                    direct, name=name, env={**direct.env, **_variables(place, server)}
                )
                cases += [direct, through]
                pairs.append((f"{system}: {mode}", direct.name, name))
        taken = in_turns(cases, warm=True)
    columns, rows = figures(taken)
    shares = {what: 1 / ratio(taken[through], taken[direct]) for what, direct, through in pairs}
    return Section(
        f"Through an SSH tunnel: {ROWS:,} rows of 11 columns",
        columns,
        rows,
        checks=[
            at_least(f"{what}: speed through the tunnel / directly", share, 0.8)
            for what, share in shares.items()
            if what.endswith("mirror")
        ],
        note="An export is the bare reading, with the tunnel's opening; it has no limit. Client,"
        " sshd and database share the machine's cores, so the cipher (aes128-gcm@openssh.com) is"
        " paid for twice here. The client's CPU includes its ssh; the server's is the database's"
        " alone. Ratios are to the first row.",
    )


def _case(name: str, mode: str, kind: str, place: Home) -> Case:
    return Case(name, [*OURS, mode, place.name], place.env, [place.data], data.server(kind))


def _variables(place: Home, server: SshServer) -> dict[str, str]:
    prefix = f"{place.name.upper()}_SSH"
    return {
        f"{prefix}_HOST": server.place,
        f"{prefix}_IDENTITY": str(server.identity),
        f"{prefix}_KNOWN_HOSTS": str(server.known_hosts),
    }

"""The Debian packages that `make setup` installs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import ROOT

#: A machine without sshd, whose sudo writes down what it is asked.
_MACHINE = """
id() { echo 1000; }
sudo() { echo "$*" >> "$ASKED"; }
command() { [ "${*: -1}" != sshd ] && builtin command "$@"; }
find() { echo found; }
ls() { echo found; }
python3() { true; }
"""


def test_ssh_is_installed_with_a_service_that_cannot_start(tmp_path: Path) -> None:
    machine, asked = tmp_path / "machine", tmp_path / "asked"
    machine.write_text(_MACHINE)
    environment = os.environ | {"BASH_ENV": str(machine), "ASKED": str(asked)}
    subprocess.run([ROOT / ".ci/packages"], env=environment, check=True, stdout=subprocess.DEVNULL)
    lines = asked.read_text().splitlines()
    (install,) = [line for line in lines if "apt-get install" in line]
    assert "openssh-server" in install.split()
    masked = [line for line in lines if line.startswith("ln -s /dev/null")]
    assert [line.rpartition("/")[2] for line in masked] == ["ssh.service", "ssh.socket"]
    assert all(lines.index(line) < lines.index(install) for line in masked)

"""Run one command and write its wall seconds, CPU seconds and peak memory to a file.

A process of its own, because a child's peak memory is never less than that of its parent's.
"""

import os
import sys
import time

target, command = sys.argv[1], sys.argv[2:]
began = time.monotonic()
child = os.posix_spawnp(command[0], command, os.environ)
_, status, used = os.wait4(child, 0)
wall = time.monotonic() - began
with open(target, "w") as file:  # noqa: PTH123 - pathlib would double this process
    file.write(f"{wall} {used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}")
sys.exit(os.waitstatus_to_exitcode(status) & 255)

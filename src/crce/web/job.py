"""The process of one job: runs a `crce` command, whatever becomes of the server that started it.

    python -m crce.web.job FOLDER

FOLDER holds job.json, which the server writes. This process holds FOLDER/lock as long as it lives, so that a server
that was restarted can tell whether it still runs, and writes exit-<attempt>.json when it ends.
"""

import json
import os
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from crce.files import write_json, write_text


LOCK = "lock"
RECORD = "job.json"
PATIENCE = 5.0  # seconds; a server that looks whether the lock is held holds it for a moment itself
DEVICE = "device.lock"  # beside the folders of the jobs: one of them works at a time, whatever the servers do


def exit_file(folder: Path, attempt: int) -> Path:
    return folder / f"exit-{attempt}.json"


def process_file(folder: Path, attempt: int) -> Path:
    """Where the process of an attempt says its number."""
    return folder / f"pid-{attempt}"


def main(folder: Path) -> int:
    """Run the command of a job, unless another process does or has done it."""
    try:
        with FileLock(folder / LOCK).acquire(timeout=PATIENCE):
            job = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            ended = exit_file(folder, job["attempt"])
            if ended.exists():
                return 0
            write_text(process_file(folder, job["attempt"]), str(os.getpid()))
            code = 130
            try:
                # what was asked before there was a process to be interrupted
                if json.loads((folder / RECORD).read_text(encoding="utf-8"))["asked"]:
                    raise KeyboardInterrupt
                with FileLock(folder.parent / DEVICE):
                    from crce.cli.main import main as crce

                    code = crce(job["arguments"])
            except KeyboardInterrupt:
                pass
            write_json(ended, {"code": code})
            return code
    except Timeout:
        return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""How much a job is slowed down by the pages that follow it:

    python benchmarks/web/load.py

`crce web` erases "cat" from the bundled model while nobody looks, and while 200 requests a second come in for 20
seconds, in turns. The steps of the job are counted in each. Writes benchmarks/web/load.json.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from statistics import median

from crce.files import write_json


RATE, SECONDS, TURNS, CONNECTIONS = 200, 20, 2, 8
PAGES = ("/health", "/", "/queue", "/runs", "/runs/cat-1", "/static/app.js")


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "crce", "web", "--no-browser", "--folder", f"{folder}/runs"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = re.search(r"http://[^/]+", server.stdout.readline())[0]
            time.sleep(5)
            draft = post(f"{address}/drafts", concept="cat")
            post(f"{draft}/start", method="esd", steps="5000")
            os.nice(19)  # those who ask are on other machines in truth: here they must not take the job's time
            rows, errors = asyncio.run(measure(address, Path(folder) / "runs" / "cat-1" / "metrics.jsonl"))
        finally:
            server.terminate()
            for job in Path(folder).glob("runs/.crce-web/jobs/*/pid-*"):
                os.kill(int(job.read_text()), 15)
    ratios = [row["steps_loaded"] / row["steps_quiet"] for row in rows]
    facts = {
        "rate": RATE,
        "seconds": SECONDS,
        "errors": errors,
        "turns": rows,
        "speed_ratio": round(median(ratios), 3),
    }
    write_json(Path(__file__).with_name("load.json"), facts)
    print(json.dumps(facts, indent=2))  # noqa: T201


def post(url: str, **form: str) -> str:
    """Send a form as a page does, and return the address that it leads to."""
    origin = "/".join(url.split("/")[:3])
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), {"Origin": origin})
    with urllib.request.urlopen(request) as answer:
        return answer.url


async def measure(address: str, metrics: Path) -> tuple[list[dict[str, int]], int]:
    """Steps of the job in turns of equal length, and how many requests failed."""
    while not metrics.exists() or steps(metrics) < 30:
        await asyncio.sleep(1)
    rows, errors = [], 0
    for _ in range(TURNS):
        row, before = {}, steps(metrics)
        await asyncio.sleep(SECONDS)
        row["steps_quiet"], before = steps(metrics) - before, steps(metrics)
        failed = await asyncio.gather(*(client(address, number) for number in range(CONNECTIONS)))
        row["steps_loaded"] = steps(metrics) - before
        rows.append(row)
        errors += sum(failed)
    return rows, errors


async def client(address: str, number: int) -> int:
    """One connection's share of the requests; returns how many were not answered with 200."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    start, failed = time.monotonic(), 0
    for k in range(RATE * SECONDS // CONNECTIONS):
        await asyncio.sleep(start + k * CONNECTIONS / RATE - time.monotonic())
        path = PAGES[(k + number) % len(PAGES)]
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        failed += " 200 " not in head.splitlines()[0]
        await reader.readexactly(int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1]))
    writer.close()
    return failed


def steps(metrics: Path) -> int:
    """Steps that the job has done."""
    return metrics.read_bytes().count(b"\n")


if __name__ == "__main__":
    main()

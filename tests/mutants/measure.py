#!/usr/bin/env python3
"""Measures which mutants the tests kill.

1. cargo-mutants lists the mutants; instrument.py writes them all into one copy of the sources.
2. Each test runs once, alone, and the program notes which mutants it reaches.
3. For each mutant, the tests that reach it run until one fails, those that reach few mutants and take little time first.

Tests that take six times as long as without a mutant, and 6 seconds more, have failed. SIGINT ends the measurement, which reports
what it has: the order is random, so that this is a sample. target/mutants/results.jsonl has a line for each mutant.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import random
import select
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from instrument import Program, environment, read_list

CHECKOUT = Path(__file__).resolve().parents[2]
TARGET = CHECKOUT / "target" / "mutants"
COPY = TARGET / "checkout"
SUITES = ("lib", "bin", "library", "cli")
RESULTS = TARGET / "results.jsonl"


def is_same(file, other):
    return other.exists() and file.read_bytes() == other.read_bytes()


def make_copy():
    """Copies what git knows to another directory, where the harness passes the number on to the program."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, text=True).stdout
    for file in filter(None, files.split("\0")):
        target = COPY / file
        # The sources are written by `Program`; cargo compiles what is newer.
        if not file.startswith("src/") and not is_same(CHECKOUT / file, target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / file, target)
    harness = COPY / "tests/cli/harness.rs"
    harness.write_text(harness.read_text().replace('"LLVM_PROFILE_FILE"', '"MUTANT"'))


def build():
    """Returns the test program of each suite."""
    command = ["cargo", "test", "--all-features", "--no-run", "--lib", "--bins", "--test", "library", "--test", "cli"]
    messages = subprocess.run(
        [*command, "--message-format=json"], cwd=COPY, env=environment(), stdout=subprocess.PIPE, check=True, text=True
    ).stdout
    programs = {}
    for message in map(json.loads, messages.splitlines()):
        if message.get("executable") and message["profile"]["test"]:
            target = message["target"]
            kind = target["kind"][0]
            programs[target["name"] if kind == "test" else kind] = message["executable"]
    return programs


class Run:
    """A run of some tests of a suite: `status` is 0 if all pass, None if it took too long."""

    def __init__(self, program, tests, mutant, limit):
        start = time.monotonic()
        process = subprocess.Popen(
            [program, "--exact", *tests, f"--test-threads={min(len(tests), 2)}"],
            cwd=COPY, env=os.environ | {"MUTANT": str(mutant)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        self.output, self.status = b"", None
        # A process that is left behind may hold the pipe: the end of the program counts, not that of its output.
        ended = os.pidfd_open(process.pid)
        pipe = process.stdout.fileno()
        os.set_blocking(pipe, False)
        watched = [pipe, ended]
        while (left := start + limit - time.monotonic()) > 0:
            ready = select.select(watched, [], [], left)[0]
            if pipe in ready:
                if data := os.read(pipe, 65536):
                    self.output += data
                    if b"... FAILED" in self.output:
                        self.status = 101
                        break
                    continue
                watched.remove(pipe)
            if ended in ready:
                self.status = process.wait()
                break
        os.close(ended)
        if self.status != 0:
            kill_session(process.pid)
        process.wait()
        process.stdout.close()
        self.seconds = time.monotonic() - start


def kill_session(session):
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            fields = (directory / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == session:
                os.kill(int(directory.name), signal.SIGKILL)
        except (OSError, IndexError):
            # It has ended.
            pass


def reach(programs, count, workers):
    """Returns for each test its time, and the numbers of the mutants that it reaches. All tests have to pass."""
    tests = [
        (suite, line.removesuffix(": test"))
        for suite in SUITES
        for line in subprocess.run(
            [programs[suite], "--list"], cwd=COPY, stdout=subprocess.PIPE, check=True, text=True
        ).stdout.splitlines()
        if line.endswith(": test")
    ]
    failed = []

    def one(test):
        notes = TARGET / f"notes-{threading.get_ident()}"
        notes.write_bytes(bytes(count + 1))
        run = Run(programs[test[0]], [test[1]], notes, 600)
        if run.status != 0:
            failed.append((test, run.output.decode(errors="replace")))
        return test, run.seconds, {number for number, byte in enumerate(notes.read_bytes()) if byte}

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        reached = {test: (seconds, numbers) for test, seconds, numbers in pool.map(one, tests)}
    if failed:
        raise SystemExit(f"these tests fail without a mutant: {failed}")
    return reached


def batches(tests, reached):
    """Returns the tests in the order in which they run, together as long as they take a second."""
    by_suite = []
    for suite in SUITES:
        own = [test for test in tests if test[0] == suite]
        own.sort(key=lambda test: (len(reached[test][1]) / 1000 + 1) * (reached[test][0] + 0.1))
        groups, seconds = [], 0
        for test in own:
            if not groups or seconds > 1:
                groups.append([])
                seconds = 0
            groups[-1].append(test)
            seconds += reached[test][0]
        by_suite.append(groups)
    longest = max(map(len, by_suite))
    return [groups[turn] for turn in range(longest) for groups in by_suite if turn < len(groups)]


def attempt(mutant, programs, reached, most):
    """Runs the tests that reach a mutant until one fails, or until they have taken `most` seconds."""
    tests = [test for test, (_, numbers) in reached.items() if mutant.number in numbers]
    result = {"number": mutant.number, "name": mutant.name, "tests": len(tests)}
    if not tests:
        return result | {"result": "not reached"}
    spent = 0
    for batch in batches(tests, reached):
        if spent > most:
            return result | {"result": "survived some"}
        expected = sum(reached[test][0] for test in batch)
        run = Run(programs[batch[0][0]], [name for _, name in batch], mutant.number, 6 * expected + 6)
        spent += run.seconds
        if run.status != 0:
            return result | {"result": "killed", "by": failure(run)}
    return result | {"result": "survived"}


def failure(run):
    if run.status is None:
        return "time"
    lines = run.output.decode(errors="replace").splitlines()
    return next((line for line in lines if line.endswith("FAILED")), f"status {run.status}")


def known_equivalents():
    """Returns the mutants that change nothing that can be seen: name without position, and line of the source."""
    lines = Path(__file__).with_name("equivalent.tsv").read_text().splitlines()
    return {tuple(line.split("\t")[:2]) for line in lines}


def report(viable, results):
    """Prints the survivors, and the share of each file, of the library and of the program that is killed."""
    equivalents = known_equivalents()
    shares = collections.defaultdict(lambda: [0, 0])
    for mutant in viable:
        result = results.get(mutant.number)
        if result is None or result["result"] != "killed" and mutant.identity(CHECKOUT) in equivalents:
            continue
        killed = result["result"] == "killed"
        for name in (mutant.file, "the program" if mutant.file.startswith("src/bin/") else "the library"):
            shares[name][0] += killed
            shares[name][1] += 1
        if not killed:
            print(f"{result['result']}: {mutant.name}")
    for name, (killed, tried) in sorted(shares.items()):
        print(f"{name}: {killed} of {tried} killed, {100 * killed / tried:.1f} %")
    print(f"{len(results)} of {len(viable)} mutants tried")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=60, help="the longest time of tests for a mutant")
    arguments.add_argument("--workers", type=int, default=2 * os.cpu_count(), help="how many test programs run at once")
    arguments.add_argument("--file", default="", help="try only the mutants of files whose path begins so")
    options = arguments.parse_args()

    TARGET.mkdir(parents=True, exist_ok=True)
    make_copy()
    listing = TARGET / "list.json"
    with listing.open("wb") as file:
        subprocess.run(["cargo", "mutants", "--list", "--json"], cwd=CHECKOUT, stdout=file, check=True)
    mutants = read_list(listing)
    viable = Program(CHECKOUT, COPY, mutants).compile()
    programs = build()
    reached = reach(programs, len(mutants), options.workers)

    chosen = [mutant for mutant in viable if mutant.file.startswith(options.file)]
    random.Random(1).shuffle(chosen)
    results = {}
    print(f"{len(chosen)} mutants to try", flush=True)
    with RESULTS.open("w") as file, concurrent.futures.ThreadPoolExecutor(options.workers) as pool:
        tried = [pool.submit(attempt, mutant, programs, reached, options.seconds) for mutant in chosen]
        try:
            for future in concurrent.futures.as_completed(tried):
                result = future.result()
                results[result["number"]] = result
                print(json.dumps(result), file=file, flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
    report(viable, results)


main()

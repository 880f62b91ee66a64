"""What a payload takes inside the core: instructions and allocations, counted under callgrind.

The program is size-report/instructions.rs, built as the shipped binary is. A payload's share is the difference
between twice as many and once as many: start, connection and handshake cancel out.
"""
import collections
import concurrent.futures
import os
import subprocess
import tempfile
from pathlib import Path

from running import callgrind, total

KIB, MIB = 1024, 1024 * 1024
# As many that the ring has gone round, where that is not too slow.
RUNS = {
    "push 2 KiB": ("push", 2 * KIB, 256),
    "push 64 KiB": ("push", 64 * KIB, 64),
    "push 1 MiB": ("push", MIB, 16),
    "ingest 2 KiB": ("ingest", 2 * KIB, 256),
    "ingest 64 KiB": ("ingest", 64 * KIB, 64),
    "profile 10 KiB": ("profile", 10 * KIB, 64),
    "profile 100 KiB": ("profile", 100 * KIB, 16),
    "jfr 64 KiB": ("jfr", 64 * KIB, 64),
    "push-tls 2 KiB": ("push-tls", 2 * KIB, 256),
    "push-tls 64 KiB": ("push-tls", 64 * KIB, 64),
    "push-tls 1 MiB": ("push-tls", MIB, 16),
    "trust": ("trust", 0, 16),
    "parse": ("parse", 0, 100),
    "forward": ("forward", 0, 100),
    "labels": ("labels", 0, 100),
}
# All that musl's malloc, calloc, aligned_alloc and realloc come down to. A block that realloc has to move counts twice.
ALLOCATORS = {"__libc_malloc_impl", "__libc_realloc"}

# The first of its kind: with the roots, the key exchange and the chain.
FIRST = {"first push-tls 2 KiB": ("push-tls", 2 * KIB)}

Cost = collections.namedtuple("Cost", "instructions allocations")


def costs(program):
    """For each run, what one payload costs."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {name: [pool.submit(cost, program, path, size, n) for n in (count, 2 * count)]
                for name, (path, size, count) in RUNS.items()}
        first = {name: pool.submit(cost, program, path, size, 1) for name, (path, size) in FIRST.items()}
        return {name: share(*(run.result() for run in pair), RUNS[name][2]) for name, pair in runs.items()} | {
            name: run.result() for name, run in first.items()}


def share(once, twice, count):
    return Cost(*((two - one) / count for one, two in zip(once, twice)))


def cost(program, path, size, count):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = callgrind(out, "--toggle-collect=instructions::ours*", "--dump-instr=yes", "--compress-pos=no")
        subprocess.run([*command, program, path, str(size), str(count)], check=True)
        profile = out.read_text()
    if not total(profile):
        raise SystemExit("measure: callgrind does not find the function `ours`")
    return Cost(total(profile), allocations(profile))


def allocations(profile):
    """How often the C library's allocator was entered: what its functions' first instructions cost.

    Not the calls callgrind lists: those it counts everywhere.
    """
    names, function, is_call = {}, "", False
    entries = {}
    for line in profile.splitlines():
        if line.startswith("fn="):
            key, _, name = line[3:].partition(" ")
            function = names.setdefault(key, name)
        elif line.startswith("cfn="):
            key, _, name = line[4:].partition(" ")
            names.setdefault(key, name)
        elif line.startswith("calls="):
            is_call = True  # the next line is what the callee cost
        elif line.startswith("0x"):
            if function in ALLOCATORS and not is_call:
                address, _, times = line.split()
                entry = (int(address, 16), int(times))
                entries[function] = min(entries.get(function, entry), entry)
            is_call = False
    return sum(times for _, times in entries.values())

"""Where the bytes of a binary are: by section, by crate, by symbol.

Code inlined across crates counts for the one it was inlined into. What no symbol names, strings and the root
certificates among it, counts for nobody, and is told apart by section.
"""
import collections
import re
import struct
import subprocess

SHT_NOBITS = 8
C_OF_RING = re.compile(r"ring_core|ecp_nistz|nistz|bn_|fe_|ge_|gcm_|aes_|sha(256|512)_|x25519|fiat|mul[x4]|sqr[x8]")
STD = {"alloc", "compiler_builtins", "core", "hashbrown", "libc", "memchr", "panic_abort", "std", "std_detect"}
RING = "ring's C and assembly"
MUSL = "musl"
OURS = "pyroscope_lambda_extension"

Symbol = collections.namedtuple("Symbol", "name size section")


def sections(path):
    """Bytes in the file by section; "headers" is what is in none."""
    elf = path.read_bytes()
    table, = struct.unpack_from("<Q", elf, 40)
    entry, count, names_at = struct.unpack_from("<HHH", elf, 58)
    rows = [struct.unpack_from("<IIQQQQIIQQ", elf, table + n * entry) for n in range(count)]
    names = elf[rows[names_at][4]:][:rows[names_at][5]]
    found = {}
    for name, kind, _, _, _, size, *_ in rows:
        if kind != SHT_NOBITS and size:
            found[names[name:names.index(b"\0", name)].decode()] = size
    found["headers"] = len(elf) - sum(found.values())
    return found


def symbols(path):
    """What takes room in the file and has a name, largest first."""
    found, seen = [], set()
    listing = subprocess.run(["nm", "-SC", "--format=sysv", path], check=True, capture_output=True, text=True)
    for line in listing.stdout.splitlines():
        fields = [field.strip() for field in line.rsplit("|", 6)]
        if len(fields) < 7 or not fields[4] or fields[6] in ("", ".bss", ".tbss", "*UND*", "*ABS*"):
            continue
        if fields[1] in seen:
            continue  # a second name for the same bytes
        seen.add(fields[1])
        found.append(Symbol(fields[0], int(fields[4], 16), fields[6]))
    return sorted(found, key=lambda symbol: -symbol.size)


def path_of(name):
    """The crate and the module of a symbol, as far as its name tells."""
    rust = re.match(r"[<&(\[]*(?:(?:dyn|impl|mut|for<[^>]*>) )*([a-z_0-9]+)(?:\[[0-9a-f]+\])?::([A-Za-z_0-9]+)?", name)
    if rust:
        crate = "std" if rust[1] in STD else rust[1]
        return crate, rust[2] or ""
    return (RING if C_OF_RING.search(name) else MUSL), ""


def by_crate(named):
    """Bytes of code and of constants for each crate, largest first."""
    crates = collections.defaultdict(lambda: [0, 0])
    for symbol in named:
        crates[path_of(symbol.name)[0]][symbol.section != ".text"] += symbol.size
    return dict(sorted(crates.items(), key=lambda item: -sum(item[1])))


def by_module(named):
    """Bytes for each module of the program itself, largest first."""
    modules = collections.Counter()
    for symbol in named:
        crate, module = path_of(symbol.name)
        if crate == OURS:
            modules[module] += symbol.size
    return dict(modules.most_common())

"""What is linked into the binary: its crates, and what the compilers bring. For notice, sbom and verify to agree on.

Found where it is decided: the crates by cargo, for both processors at once; the rest in the tools that built it.
"""
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
NAME = "pyroscope-lambda-extension"
TARGETS = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"]


def output_of(*command, **more):
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **more)
    if ran.returncode:
        sys.exit(f"{ran.stderr}{' '.join(map(str, command))}: FAILED with status {ran.returncode}")
    return ran.stdout


# Where setup puts the tools, and which Rust has compiled the binary.
tools, rustc = map(Path, output_of("bash", "-c", "source .ci/toolchain; echo $tools; layer_rustc").split())


class Brought(NamedTuple):
    """What no line of Cargo.lock names."""
    title: str  # of the licence
    who: str  # as the notice has it
    text: str  # the licence
    name: str  # as a list of parts has it, from here on
    version: str
    licence: str
    purl: str
    cpe: str | None
    description: str


def tree(*options):
    """Name, version and whatever cargo says more of every crate that is linked: nothing that only tests or builds use."""
    listing = output_of(
        rustc.with_name("cargo"), "tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe",
        *options, *(option for target in TARGETS for option in ("--target", target)),
        env=os.environ | {"RUSTC_BOOTSTRAP": "1"},
    )
    lines = [line.split() for line in listing.splitlines() if line]
    return {(name, version.removeprefix("v"), *more) for name, version, *more in lines}


def crates():
    return {(name, version) for name, version, *_ in tree() if name != NAME}


def crates_of_std():
    """Those that Rust's standard library brings from the registry, as it is built here."""
    library = Path(output_of(rustc, "--print", "sysroot").strip()) / "lib/rustlib/src/rust/library"
    found = tree("--manifest-path", library / "std/Cargo.toml", "--features", "optimize_for_size")
    return {crate for crate in found if len(crate) == 2}  # what is part of its source is named with its folder


def brought():
    """Rust's standard library, and what zig puts between it and the kernel."""
    rust = output_of(rustc, "--version").split()[1]
    zig = next((tools / "lib").glob("python*/site-packages/ziglang"))
    ziglang = re.search(r"^ziglang==(\S+)", (ROOT / ".ci/requirements.txt").read_text(), re.MULTILINE)[1]
    musl = re.search(r'"(.+)"', (zig / "lib/libc/musl/src/internal/version.h").read_text())[1]
    return [
        Brought(
            "Apache License 2.0", f"Rust's standard library {rust}", (ROOT / "LICENSE").read_text(),
            "rust-std", rust, "MIT OR Apache-2.0", f"pkg:github/rust-lang/rust@{rust}",
            f"cpe:2.3:a:rust-lang:rust:{rust}:*:*:*:*:*:*:*",
            "Rust's standard library, compiled from its source; in it, the crates that it is made with",
        ),
        Brought(
            "musl's licences", f"musl, the C library {musl}", (zig / "lib/libc/musl/COPYRIGHT").read_text(),
            "musl", musl, "MIT", f"pkg:generic/musl@{musl}",
            f"cpe:2.3:a:musl-libc:musl:{musl}:*:*:*:*:*:*:*",
            f"The C library, as zig {ziglang} brings it",
        ),
        Brought(
            "MIT License", f"zig's compiler-rt {ziglang}", (zig / "LICENSE").read_text(),
            "zig-compiler-rt", ziglang, "MIT", f"pkg:pypi/ziglang@{ziglang}",
            None,
            "What compiled code calls where the processor has no instruction, and zig's own share of the C library",
        ),
    ]


def linked():
    """Every part, as the notice names it."""
    return {" ".join(crate) for crate in crates()} | {part.who for part in brought()}


def named_in_notice(notice):
    return set(re.findall(r"^  (\S.* \d[\w.+-]*)$", notice, re.MULTILINE))

#!/usr/bin/env python3
"""Checks that a program is built for a target, such as aarch64-unknown-linux-gnu, and needs no symbol of a newer C
library than the available one.
"""

import argparse
import math
import sys

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}


def version(text):
    """A comparable version. One that is not a number (GLIBC_ABI_DT_RELR, GLIBC_PRIVATE) is newer than any."""
    return tuple(int(part) if part.isdigit() else math.inf for part in text.split("."))


def glibc(elf):
    """The glibc versions of the program's symbols."""
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for _, symbols in section.iter_versions():
                yield from (symbol.name[6:] for symbol in symbols if symbol.name.startswith("GLIBC_"))


def fault(path, target, newest):
    """What is wrong with the program; none if nothing is."""
    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            if elf["e_machine"] != MACHINES[target.split("-")[0]]:
                return f"is built for {elf['e_machine']}, not for {target}"
            needed = max(glibc(elf), key=version, default="0")
    except (ELFError, OSError) as error:
        return f"cannot be read as a program: {error}"
    if version(needed) > version(newest):
        return f"needs glibc {needed}, but there is only {newest}: build it with `sam build`, which links against that"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    parser.add_argument("--target", required=True, help="the Rust target that it was built for")
    parser.add_argument("--glibc", required=True, metavar="VERSION", help="the newest version available")
    args = parser.parse_args()
    faults = [(program, fault(program, args.target, args.glibc)) for program in args.programs]
    for program, wrong in faults:
        if wrong:
            print(f"{program} {wrong}", file=sys.stderr)
    sys.exit(any(wrong for _, wrong in faults))


if __name__ == "__main__":
    main()

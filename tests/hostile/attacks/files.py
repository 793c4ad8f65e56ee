"""Attacks on files: those of the grid, of Ray and of another job, and writes outside of the job directory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import site
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.hostile.attacks.attack import ATTACKS, Attack, RefusedError, Wrote, attack
from tests.hostile.attacks.syscalls import call
from tests.hostile.targets import Targets

SECRETS = ("grid-file", "token", "job-store", "settings", "result", "log", "session")
VICTIM_FILES = ("job-directory", "tmp", "shm")


def _read(path: str, text: str) -> str:
    """Read a file of which a text is known."""
    if text.encode() not in Path(path).read_bytes():
        raise RefusedError(f"{path} has another content here")
    return f"read {path}"


def _of_secret(name: str) -> Callable[[Targets], str]:
    def run(targets: Targets) -> str:
        return _read(*targets.secrets[name])

    return run


def _of_victim(name: str) -> Callable[[Targets], str]:
    def run(targets: Targets) -> str:
        return _read(targets.victim_files[name], targets.victim_text)

    return run


for each in SECRETS:
    ATTACKS[f"read-{each}"] = Attack(f"read-{each}", _of_secret(each))
for each in VICTIM_FILES:
    ATTACKS[f"read-{each}:victim"] = Attack(f"read-{each}:victim", _of_victim(each))


@attack("list-state-directory")
def list_state_directory(targets: Targets) -> str:
    """See names in the grid's state directory, besides those that lead to the own job directory."""
    return _names_below(targets.state_dir)


@attack("list-session-directory")
def list_session_directory(targets: Targets) -> str:
    """See names in Ray's session directory."""
    return _names_below(targets.session_dir)


def _names_below(path: str) -> str:
    if names := [name for name in os.listdir(path) if not Path.cwd().is_relative_to(Path(path, name))]:
        return f"saw {len(names)} names, such as {names[0]}"
    raise RefusedError("it is empty here")


@attack("change-grid-file")
def change_grid_file(targets: Targets) -> str:
    """Open the grid's file for writing; its content stays."""
    return _open_to_write(*targets.secrets["grid-file"])


@attack("change-result")
def change_result(targets: Targets) -> str:
    """Open a stored result for writing; its content stays."""
    path, text = targets.secrets["result"]
    with contextlib.suppress(PermissionError):  # the owner of a file can lift that
        os.chmod(path, 0o600)
    return _open_to_write(path, text)


@attack("change-job-directory:victim")
def change_job_directory(targets: Targets) -> str:
    """Open a file of the other job for writing; its content stays."""
    return _open_to_write(targets.victim_files["job-directory"], targets.victim_text)


def _open_to_write(path: str, text: str) -> str:
    with open(path, "r+b") as file:
        if text.encode() not in file.read():
            raise RefusedError(f"{path} has another content here")
    return f"could write {path}"


@attack("hard-link-secret")
def hard_link_secret(targets: Targets) -> str:
    """Link the grid's file into the job directory, from where it would become part of the result."""
    path, text = targets.secrets["grid-file"]
    os.link(path, "stolen")
    try:
        return _read("stolen", text)
    finally:
        os.unlink("stolen")


@attack("climb-from-working-directory")
def climb_from_working_directory(targets: Targets) -> str:
    """Follow `..` from the working directory, which leaves a mount namespace if it was opened outside."""
    return _climb("", targets)


@attack("climb-from-descriptors")
def climb_from_descriptors(targets: Targets) -> str:
    """Follow `..` from each inherited descriptor that is a directory, and read those that are files of the grid."""
    found = []
    for number in _descriptors():
        if stat.S_ISDIR(os.fstat(number).st_mode):
            with contextlib.suppress(OSError, RefusedError):
                found.append(_climb(f"/proc/self/fd/{number}/", targets))
    if found:
        return found[0]
    raise RefusedError("no descriptor leads out")


@attack("inherit-descriptor")
def inherit_descriptor(targets: Targets) -> str:
    """Have a descriptor of the agent beyond standard input, output and error."""
    if names := [f"{number} {_target(number)}" for number in _descriptors() if number > 2]:
        return f"inherited {names}"
    raise RefusedError("only the standard ones are open")


def _descriptors() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            os.fstat(int(name))
            if not _target(int(name)).startswith("pipe:[" + _OWN_PIPE):
                found.append(int(name))
    return found


_OWN_PIPE = "own"  # replaced by the runner: the pipe on which it gets what an attack has reached


def set_own_pipe(number: int) -> None:
    """Do not count this pipe as inherited."""
    global _OWN_PIPE  # noqa: PLW0603 - one attack runs in each process
    _OWN_PIPE = f"{os.fstat(number).st_ino}]"


def _target(number: int) -> str:
    return os.readlink(f"/proc/self/fd/{number}")


def _climb(start: str, targets: Targets) -> str:
    """Go up and look at each height for what lies in the real state directory: names below its parts."""
    text = targets.secrets["grid-file"][1]
    place = start
    for _ in range(12):
        place += "../"
        for path in _below(place, Path(targets.secrets["grid-file"][0])):
            with contextlib.suppress(OSError):
                if text in path.read_text(errors="replace"):
                    return f"read {path}"
    raise RefusedError("no directory above leads to the grid's file")


def _below(place: str, path: Path) -> Iterable[Path]:
    """What the file could be called from a directory above it."""
    parts = path.parts[1:]
    return (Path(place, *parts[start:]) for start in range(len(parts)))


@attack("climb-from-processes")
def climb_from_processes(targets: Targets) -> str:
    """Read the grid's file through the root or the working directory of any process."""
    path, text = targets.secrets["grid-file"]
    for entry in (*os.listdir("/proc"), f"self/task/{os.getpid()}"):
        for way in ("root", "cwd"):
            for goal in [path] if way == "root" else [str(each) for each in _below("..", Path(path))]:
                with contextlib.suppress(OSError):
                    if text in Path(f"/proc/{entry}/{way}/{goal}").read_text(errors="replace"):
                        return f"read /proc/{entry}/{way}/{goal}"
    raise RefusedError("no process leads to it")


@attack("open-by-handle")
def open_by_handle(targets: Targets) -> str:
    """Open an inode by its number, past all mounts: the root of the file system that holds the working directory."""
    size = 128
    handle = ctypes.create_string_buffer(8 + size)
    ctypes.cast(handle, ctypes.POINTER(ctypes.c_uint))[0] = size
    mount_id = ctypes.c_int()
    call("name_to_handle_at", -100, b".", handle, ctypes.byref(mount_id), 0)
    place = os.open(".", os.O_RDONLY)
    call("open_by_handle_at", place, handle, os.O_RDONLY)
    return "opened a directory by its handle"


@attack("write-state-directory")
def write_state_directory(targets: Targets) -> Wrote:
    """Make a file in the grid's state directory."""
    return _write(Path(targets.state_dir, "hostile"))


@attack("write-shared-memory")
def write_shared_memory(targets: Targets) -> Wrote:
    """Make a file in /dev/shm that others see."""
    return _write(Path("/dev/shm/hostile"))


@attack("write-tmp")
def write_tmp(targets: Targets) -> Wrote:
    """Make a file in /tmp that others see."""
    return _write(Path("/tmp/hostile"))


@attack("write-home")
def write_home(targets: Targets) -> Wrote:
    """Make a file in the home directory that others see."""
    return _write(Path.home() / "hostile")


@attack("change-shell-start")
def change_shell_start(targets: Targets) -> Wrote:
    """Change what the user's shell runs at the next login, outside of the sandbox."""
    return _write(Path.home() / ".bashrc")


@attack("plant-shell-start")
def plant_shell_start(targets: Targets) -> Wrote:
    """Make a file that the user's shell runs at the next login, where there was none."""
    return _write(Path.home() / ".bash_login")


@attack("replace-services")
def replace_services(targets: Targets) -> Wrote:
    """Make a unit that the user's systemd starts outside of the sandbox, by replacing the directories around it."""
    around = Path.home() / ".config"
    around.rename(around.with_name(f".config-{os.getpid()}"))
    units = around / "systemd" / "user"
    units.mkdir(parents=True)
    return _write(units / "hostile.service")


@attack("plant-code")
def plant_code(targets: Targets) -> Wrote:
    """Make a module that the Python of the grid and of other jobs loads at its start."""
    packages = Path(site.getusersitepackages())
    packages.mkdir(parents=True, exist_ok=True)
    return _write(packages / "hostile.pth")


@attack("write-job-directory")
def write_job_directory(targets: Targets) -> str:
    """Make a file in the own job directory, which every pricer may."""
    Path("own").write_text("x")
    os.unlink("own")
    return "wrote its own directory, as every pricer may"


def _write(path: Path) -> Wrote:
    text = f"# hostile {os.getpid()}\n"
    path.write_text(text)
    return Wrote(str(path), text)


@attack("write-proc-sys")
def write_proc_sys(targets: Targets) -> str:
    """Open a setting of the kernel for writing."""
    for name in ("kernel/hostname", "user/max_user_namespaces", "vm/overcommit_memory", "net/ipv4/ip_forward"):
        with contextlib.suppress(OSError):
            os.close(os.open(f"/proc/sys/{name}", os.O_WRONLY))
            return f"could write /proc/sys/{name}"
    raise PermissionError(13, "no setting of the kernel could be opened")


@attack("escape-cgroup")
def escape_cgroup(targets: Targets) -> str:
    """Enter a cgroup above or beside the own one, in any hierarchy, or end all processes of one."""
    for directory in _cgroups_around():
        with contextlib.suppress(OSError):
            (directory / "cgroup.procs").write_text(str(os.getpid()))
            return f"entered {directory}"
        with contextlib.suppress(OSError):
            os.close(os.open(directory / "cgroup.kill", os.O_WRONLY))
            return f"could end all processes of {directory}"
    raise PermissionError(13, "no cgroup above or beside could be written")


def _cgroups_around() -> list[Path]:
    found = []
    own = [line.rpartition(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            for path in own:
                above = Path(fields[4] + path).parent
                if above.is_relative_to(fields[4]):
                    found += [
                        above,
                        *(each for each in above.glob("*") if each.is_dir() and str(each) != fields[4] + path),
                    ]
    return found

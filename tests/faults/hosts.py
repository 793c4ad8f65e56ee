r"""Five hosts on one Linux machine, and the ways in which hosts fail.

Each host is one process with namespaces of its own: its own name, process table, network address, shared memory,
temporary directory and home. A further namespace holds the switches: one for each rack, and a core switch that joins
the racks, the head, and this machine (`DESK`, from where an operator or a client reaches the hosts).

                      core switch ── desk 10.88.0.254 (this machine)
                     /     |     \
                  head   rack-a   rack-b
                  .1      /  \     /  \
                        a1   a2   b1   b2
                       .11  .12  .21  .22

Everything else of the file system is shared, so `/srv/raygrid` plays the part of a shared directory. Everything ends
with the process that made it: the kernel kills the hosts, and with the last process of a namespace its network goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.support.waiting import pauses

NET = "10.88.0"
DESK = f"{NET}.254"
ADDRESSES = {
    "head": f"{NET}.1",
    "a1": f"{NET}.11",
    "a2": f"{NET}.12",
    "b1": f"{NET}.21",
    "b2": f"{NET}.22",
    "c1": f"{NET}.31",
}
RACKS = {"rack-a": ("a1", "a2"), "rack-b": ("b1", "b2"), "rack-c": ("c1",)}
FIVE = ("head", "a1", "a2", "b1", "b2")  # c1 is a spare, in a rack of its own, that starts switched off
TOOLS = ("unshare", "nsenter", "ip", "tc", "ssh-keygen", "rsync", "ssh")
SSHD = "/usr/sbin/sshd"
HOME = "/root"
OPT = "/opt/raygrid"  # where a host keeps what is its own: the environment, its rack, its state
SHARED = "/srv/raygrid"  # the same on all hosts
STATE_BYTES = 512 * 1024**2
LOCK = Path("/run/raygrid-hosts.lock")
PLACE, PREFIX = Path("/var/tmp"), "raygrid-hosts-"
CABLE = "rg-desk"  # this machine's end of the cable to the switches
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def why_not() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts of one's own need root on Linux"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not Path(SSHD).exists():
        missing.append("sshd")
    if missing:
        return f"hosts of one's own need {', '.join(missing)} (Debian: iproute2 openssh-server rsync util-linux)"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    if tried.returncode != 0:
        return (
            f"hosts of one's own need a machine (or container) that lets root make namespaces: {tried.stderr.strip()}"
        )
    return None


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _sh(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command; its error output is the test's error message."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done


@dataclass
class _Namespace:
    """Namespaces, held by the process that is number 1 in them."""

    holder: subprocess.Popen[bytes]
    pid: int

    @classmethod
    def make(cls, name: str, script: str, log: Path, *, whole_host: bool = True) -> _Namespace:
        kinds = ["--net", "--pid", "--mount", "--uts", "--ipc", "--mount-proc"] if whole_host else ["--net", "--pid"]
        # Bash as number 1 reaps orphans, as an init must.
        script += "\nwhile :; do sleep 1000 & wait $!; done"
        with log.open("wb") as output:
            holder = subprocess.Popen(
                ["unshare", *kinds, "--fork", "--kill-child", "bash", "-ec", script, name],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_die_with_parent,
            )
        children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        until(lambda: holder.poll() is not None or bool(children.read_text().split()), f"{name} has a first process")
        if holder.poll() is not None:
            raise RuntimeError(f"cannot make {name}: {log.read_text()}")
        return cls(holder, int(children.read_text().split()[0]))

    def enter(self, *command: str, network_only: bool = False) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "-n" if network_only else "-a", "--", *command]

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.holder.wait(timeout=10)


Seen = TypeVar("Seen")


def until(
    condition: Callable[[], Seen | None],
    claim: str,
    within_s: float = 60.0,
    *,
    instead: Callable[[], object] = lambda: "",
) -> Seen:
    """Wait until a claim holds, and give what showed it; fail with the claim, and what is `instead`, if it does not."""
    deadline = time.monotonic() + within_s
    for pause_s in pauses():
        if seen := condition():
            return seen
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {claim}; {instead()}"
        time.sleep(pause_s)
    raise AssertionError("pauses never end")


class Hosts:
    """The hosts, their links, and what can happen to them. `five_hosts` makes and ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._switches: _Namespace | None = None
        self._hosts: dict[str, _Namespace] = {}
        self._frozen: set[int] = set()
        self._processes: list[subprocess.Popen[bytes]] = []

    # --- making hosts -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the switches and turn every host on."""
        (self.directory / "shared").mkdir()
        _sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        _sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.directory / "host_key"))
        (self.directory / "resolv.conf").write_text("# nothing to ask\n")
        names = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost\n{names}{DESK} desk\n")
        self._make_switches()
        for name in FIVE:
            self.power_on(name)

    def close(self) -> None:
        """Turn everything off."""
        for process in self._processes:
            process.kill()
            process.wait(timeout=10)
        for host in list(self._hosts):
            self.power_off(host)
        if self._switches is not None:
            self._switches.end()
            _await_no_cable()

    @property
    def key(self) -> Path:
        """The SSH key that opens every host."""
        return self.directory / "ssh_key"

    def _make_switches(self) -> None:
        bridges = ["core", *RACKS]
        script = "ip link set lo up\n"
        for bridge in bridges:
            script += f"ip link add {bridge} type bridge && ip link set {bridge} up\n"
        for rack in RACKS:
            script += f"ip link add up-{rack} type veth peer name dn-{rack}\n"
            script += f"ip link set up-{rack} master core up && ip link set dn-{rack} master {rack} up\n"
        self._switches = _Namespace.make("switches", script, self.directory / "switches.log", whole_host=False)
        until(lambda: self._has_link(f"dn-{list(RACKS)[-1]}"), "the switches are up")
        _sh("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "desk", "netns", str(self._switches.pid))
        self._switch("ip", "link", "set", "desk", "master", "core", "up")
        _sh("ip", "addr", "add", f"{DESK}/24", "dev", CABLE)
        _sh("ip", "link", "set", CABLE, "up")

    def _has_link(self, name: str) -> bool:
        assert self._switches is not None
        command = self._switches.enter("ip", "link", "show", name, "up", network_only=True)
        return "UP" in subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def _switch(self, *command: str) -> str:
        assert self._switches is not None
        return _sh(*self._switches.enter(*command, network_only=True)).stdout

    def power_on(self, name: str) -> None:
        """Turn a host on: nothing of an earlier life is there, except what lies in `SHARED`."""
        own = self.directory / name
        shutil.rmtree(own, ignore_errors=True)
        for part in ("home/.ssh", "tmp", "opt"):
            (own / part).mkdir(parents=True)
        shutil.copy(self.key.with_suffix(".pub"), own / "home/.ssh/authorized_keys")
        (own / "home/.bashrc").write_text("")
        (own / "home/.profile").write_text(". ~/.bashrc\n")
        rack = next((rack for rack, hosts in RACKS.items() if name in hosts), None)
        script = f"hostname {name}\nexport TMPDIR=/tmp HOME={HOME}\n"
        script += "mount -t tmpfs -o size=2g,mode=1777 tmpfs /dev/shm\n"
        script += f"mount --bind {self.directory}/hosts /etc/hosts\n"
        script += f"mount --bind {self.directory}/resolv.conf /etc/resolv.conf\n"
        script += _own_directory("/opt", own / "opt") + _own_directory("/srv", own / "srv")
        script += f"mkdir -p {SHARED} {OPT}/state && mount --bind {self.directory}/shared {SHARED}\n"
        script += f"mount -t tmpfs -o size={STATE_BYTES} tmpfs {OPT}/state\n"
        script += f"ln -s {sys.prefix} {OPT}/venv\n"
        if rack:
            script += f"echo {rack} > {OPT}/rack\n"
        script += _own_directory(HOME, own / "home") + _own_directory("/tmp", own / "tmp")
        script += "ip link set lo up\ntouch /tmp/.ready\n"
        host = _Namespace.make(name, script, self.directory / f"{name}.log")
        self._hosts[name] = host
        until(lambda: host.holder.poll() is not None or self._ready(host), f"{name} is on")
        assert host.holder.poll() is None, (self.directory / f"{name}.log").read_text()
        assert self._switches is not None
        # Both ends of the cable are made inside their namespaces: none is ever here, where it would outlive its
        # maker. A host keeps its hardware address over its lives, which others have cached.
        mac = f"02:00:0a:58:00:{int(ADDRESSES[name].rpartition('.')[2]):02x}"
        cable = f"ip link add v-{name} netns {self._switches.pid} type veth"
        _sh(*f"{cable} peer name eth0 address {mac} netns {host.pid}".split())
        self._switch("ip", "link", "set", f"v-{name}", "master", rack or "core", "up")
        for command in (
            f"ip addr add {ADDRESSES[name]}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {DESK}",
        ):
            self.run(name, *command.split())
        self._start_sshd(name)

    def _ready(self, host: _Namespace) -> bool:
        return Path(f"/proc/{host.pid}/root/tmp/.ready").exists()

    def _start_sshd(self, name: str) -> None:
        config = self.directory / name / "sshd_config"
        config.write_text(
            f"ListenAddress {ADDRESSES[name]}\nHostKey {self.directory}/host_key\nPidFile none\nUsePAM no\n"
            "StrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nUseDNS no\nMaxStartups 100\n"
            f"AuthorizedKeysFile {HOME}/.ssh/authorized_keys\nSubsystem sftp internal-sftp\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self.run(name, SSHD, "-f", str(config))

    @property
    def known_hosts(self) -> str:
        """The SSH keys of all hosts, as a file of known hosts."""
        key = (self.directory / "host_key.pub").read_text().rpartition(" ")[0]
        return "".join(f"{address} {key}\n" for address in ADDRESSES.values())

    # --- running commands on hosts ------------------------------------------------------------------------------

    def command(self, host: str, *command: str) -> list[str]:
        """What to run here so that it runs on a host."""
        return self._hosts[host].enter(*command)

    def run(
        self,
        host: str,
        *command: str,
        timeout_s: float = 60.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host and wait for it."""
        done = subprocess.run(
            self.command(host, *command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment(env),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"on {host}: {' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def start(
        self, host: str, *command: str, log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command on a host; it ends with the hosts at the latest."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(host, *command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(env),
                preexec_fn=_die_with_parent,
            )
        self._processes.append(process)
        return process

    @staticmethod
    def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment that a login on a host would have: nothing of this process's own."""
        return {
            "PATH": f"{OPT}/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "RAYGRID_PLAIN_HTTP": "1",  # the networks between the hosts exist on this machine only
            **(more or {}),
        }

    def processes(self, host: str, title: str = "") -> dict[int, str]:
        """The processes of a host whose command line contains a text, by their number on this machine."""
        inside = os.stat(f"/proc/{self._hosts[host].pid}/ns/pid").st_ino
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if os.stat(entry / "ns/pid").st_ino != inside:
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if line and title in line:
                    found[int(entry.name)] = line
        return found

    def file(self, host: str, path: str) -> Path:
        """A file of a host, as this machine sees it."""
        return Path(f"/proc/{self._hosts[host].pid}/root{path}")

    # --- faults -------------------------------------------------------------------------------------------------

    def cut(self, what: str) -> None:
        """Cut the link of a host, or the uplink of a rack's switch. Packets vanish without an error."""
        self._switch("ip", "link", "set", self._link(what), "down")

    def slow(self, what: str, bits_per_s: str = "10mbit") -> None:
        """Make the link of a host, or a rack's uplink, slow: towards it, at most so many bits a second."""
        link = self._link(what)
        self._switch(*f"tc qdisc replace dev {link} root tbf rate {bits_per_s} burst 64kb latency 400ms".split())

    def power_off(self, host: str) -> None:
        """Kill every process of the host at once, as if the power failed."""
        namespace = self._hosts.pop(host)
        namespace.end()
        link = f"v-{host}"
        with contextlib.suppress(RuntimeError):
            self._switch("ip", "link", "del", link)

    def freeze(self, host: str, title: str = "") -> list[int]:
        """Stop processes of a host (all, or those whose command line contains a text)."""
        first = self._hosts[host].pid
        pids = [pid for pid in self.processes(host, title) if pid != first]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        self._frozen.update(pids)
        return pids

    def thaw(self, pids: Sequence[int] | None = None) -> None:
        """Let frozen processes go on."""
        for pid in list(self._frozen if pids is None else pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            self._frozen.discard(pid)

    def kill(self, host: str, title: str) -> list[int]:
        """`kill -9` the processes of a host whose command line contains a text."""
        pids = list(self.processes(host, title))
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return pids

    def fill_disk(self, host: str) -> None:
        """Leave no byte free on the disk of the host's state."""
        self.run(host, "bash", "-c", f"cat /dev/zero > {OPT}/state/full || true", check=False)

    def lose_share(self, host: str) -> None:
        """Unmount the shared directory on a host: what is left in its place is empty, and the host's own."""
        self.run(host, "umount", "--lazy", SHARED)

    def heal(self) -> None:
        """Mend every link, thaw all processes, empty the disks that were filled, mount what was unmounted."""
        for link in [*(f"v-{host}" for host in self._hosts), *(f"up-{rack}" for rack in RACKS)]:
            self._switch("ip", "link", "set", link, "up")
            with contextlib.suppress(RuntimeError):  # it was not slow
                self._switch("tc", "qdisc", "del", "dev", link, "root")
        self.thaw()
        for host in self._hosts:
            self.file(host, f"{OPT}/state/full").unlink(missing_ok=True)
            if self.run(host, "mountpoint", "-q", SHARED, check=False).returncode != 0:
                self.run(host, "mount", "--bind", f"{self.directory}/shared", SHARED)

    def uplink_bytes(self, rack: str) -> tuple[int, int]:
        """Bytes that have gone into a rack and out of it, over its uplink, since the hosts were made."""
        counts = self._switch("cat", "/proc/net/dev")
        line = next(line for line in counts.splitlines() if line.strip().startswith(f"up-{rack}:"))
        fields = line.partition(":")[2].split()
        # Seen from the core switch: what it sends down the link goes into the rack.
        return int(fields[8]), int(fields[0])

    @staticmethod
    def _link(what: str) -> str:
        return f"up-{what}" if what in RACKS else f"v-{what}"


def _own_directory(path: str, instead: Path) -> str:
    """Commands that put a host's own directory in a path's place, keeping in sight what Python and the tests need."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2], Path(tempfile.gettempdir())}
    keep = sorted(str(each) for each in needed if each.is_relative_to(path) and str(each) != path)
    keep = [each for each in keep if not any(each != other and Path(each).is_relative_to(other) for other in keep)]
    script = f"mkdir -p {instead}\n"
    for each in keep:
        inside = instead / Path(each).relative_to(path)
        script += f"mkdir -p {inside} && mount --rbind {each} {inside}\n"
    return f"{script}mount --rbind {instead} {path}\n"


def _await_no_cable() -> None:
    """Wait until the kernel has removed a namespace's links, a little after its last process."""
    until(lambda: not Path(f"/sys/class/net/{CABLE}").exists(), f"the cable {CABLE} to earlier switches is gone")


@contextmanager
def five_hosts() -> Iterator[Hosts]:
    """Make five hosts; they end with the block. One set at a time on a machine."""
    with LOCK.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        # A node agent that ran in this process has made it adopt orphans, which init should reap.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        # A killed owner leaves hosts that are just dying, and its directory.
        _await_no_cable()
        for left in PLACE.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=PLACE))
        hosts = Hosts(directory)
        try:
            hosts.open()
            yield hosts
        finally:
            hosts.close()
            shutil.rmtree(directory, ignore_errors=True)

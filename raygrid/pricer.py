"""Make a Python program a warm pricer in one line: `serve(main)`.

The same program still runs cold, once for the input on its command line. Nothing but the standard library is imported,
and little of that, for this is loaded with every pricer. What it says to the node is in `docs/guides/warm-pricers.md`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

KEPT_MARKETS = 4  # what `setup` returned for the sets of shared data used last
_USAGE = 2


class PricerJob(NamedTuple):
    """One job of a pricer.

    Attributes:
        job_id: the client's id for it.
        input: the input file.
        output_dir: the job directory, which is the working directory, too; what is in it afterwards is the result.
        args: arguments of the submit.
        data: shared data by name. The files go with the job; `setup` must have read what is to stay.
        market: what `setup` returned for this shared data; None without one.
        slot: number of the job's slot on its node, from 0: no job that runs there at the same time has the same.
    """

    job_id: str
    input: Path
    output_dir: Path
    args: tuple[str, ...] = ()
    data: Mapping[str, Path] = {}
    market: Any = None
    slot: int = 0


Job = PricerJob  # its name in release 0.1

Main = Callable[[PricerJob], object]
Setup = Callable[[Mapping[str, Path]], object]


def serve(main: Main, setup: Setup | None = None, *, fork: bool = False) -> NoReturn:
    """Run jobs until there are no more; does not return.

    Started by a node as a warm pricer, it takes job after job. Started by anybody else, it runs `main` once, with the
    first argument of the command line as the input and the others as `args`, in the current directory; shared data is
    then what lies under `data/`.

    Args:
        main: prices one job. What it returns is the exit code (None for 0), as for `sys.exit`; an exception is exit
            code 1 with the traceback on stderr. What it prints is the job's own, even what C libraries print.
        setup: loads shared data, given as paths by name; called once for each different content of it.
        fork: run each job in a fork of this process, loaded already. Then nothing that a job does to the process stays,
            and a crash costs no loading. Not for programs that have threads when they are loaded.
    """
    if os.environ.pop("RAYGRID_WARM", "") != "1":  # taken out, so that a pricer which this one starts runs cold
        _run_once(main, setup)
    _Server(main, setup, fork=fork).run()


def _run_once(main: Main, setup: Setup | None) -> NoReturn:
    if len(sys.argv) < _USAGE:
        print(f"usage: {sys.argv[0]} INPUT [ARGUMENTS...]", file=sys.stderr)
        sys.exit(_USAGE)
    here = Path.cwd()
    shared = here / "data"
    data = {path.name: path for path in sorted(shared.iterdir())} if shared.is_dir() else {}
    slot = int(os.environ.get("RAYGRID_SLOT") or 0)
    job = PricerJob(os.environ.get("RAYGRID_JOB_ID", ""), Path(sys.argv[1]), here, tuple(sys.argv[2:]), data, slot=slot)
    sys.exit(main(job if setup is None else job._replace(market=setup(data))))  # type: ignore[arg-type]  # as documented


class _Server:
    """Takes jobs from the node and answers; the descriptors 0 to 2 are the job's meanwhile."""

    def __init__(self, main: Main, setup: Setup | None, *, fork: bool) -> None:
        import ctypes  # noqa: PLC0415 - a cold run does without these
        import json  # noqa: PLC0415
        import traceback  # noqa: PLC0415

        self._main, self._setup, self._fork = main, setup, fork
        self._json, self._print_traceback = json, traceback.print_exc
        self._flush_libraries = ctypes.CDLL(None).fflush
        self._markets: OrderedDict[tuple[tuple[str, str], ...], object] = OrderedDict()
        self._home = os.getcwd()
        self._temporary = os.environ.get("TMPDIR", "")
        names = [name for name in ("TMPDIR", "TMP", "TEMP") if name in os.environ]
        self._variables = [
            name for name in names if os.path.realpath(os.environ[name]) == self._home
        ]  # set by the node
        sys.stdout.flush()  # what was printed while loading is no answer, nor any job's
        self._requests = os.fdopen(os.dup(0), "rb")
        self._answers = os.dup(1)
        self._log = os.dup(2)
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._leave()

    def run(self) -> NoReturn:
        """Answer every line until the node closes the pipe."""
        for line in self._requests:
            said = self._json.loads(line.decode("utf-8", "surrogateescape"))
            answer = {"number": said["number"], **self._answer(said)}
            os.write(self._answers, self._json.dumps(answer).encode() + b"\n")
        sys.exit(0)

    def _answer(self, said: dict[str, Any]) -> dict[str, int]:
        self._enter(said)
        try:
            job = PricerJob(
                said["job_id"],
                Path(said["input"]),
                Path(said["output_dir"]),
                tuple(said["args"]),
                {each["name"]: Path(each["path"]) for each in said["data"]},
                slot=said.get("slot", 0),  # a node may be older than this file
            )
            loaded: list[object] = []
            code = self._exit_code(lambda: loaded.append(self._market(job, said["data"])))
            if not loaded:  # `setup` failed, or left
                return {"exit_code": code}
            job = job._replace(market=loaded[0])
            return self._in_fork(job) if self._fork else {"exit_code": self._exit_code(lambda: self._main(job))}
        finally:
            self._leave()

    def _market(self, job: PricerJob, data: list[dict[str, str]]) -> object:
        if self._setup is None:
            return None
        key = tuple(sorted((each["name"], each["sha256"]) for each in data))
        if key not in self._markets:
            if len(self._markets) >= KEPT_MARKETS:  # before another is loaded: they may be large
                self._markets.popitem(last=False)
            self._markets[key] = self._setup(job.data)
        self._markets.move_to_end(key)
        return self._markets[key]

    def _exit_code(self, work: Callable[[], object]) -> int:
        """What the process would have exited with."""
        try:
            code = work()
        except SystemExit as stop:
            code = stop.code
        except BaseException:  # whatever it is, it ended this job and no other
            self._print_traceback()
            return 1
        if code is None or isinstance(code, int):
            return (code or 0) & 0xFF
        print(code, file=sys.stderr)
        return 1

    def _in_fork(self, job: PricerJob) -> dict[str, int]:
        self._flush()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(self._requests.fileno())
                os.close(self._answers)
                code = self._exit_code(lambda: self._main(job))
                self._flush()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return {"exit_code": code} if code >= 0 else {"signal": -code}

    def _enter(self, said: dict[str, Any]) -> None:
        """Be where a cold pricer would be: in the job directory, printing into the job's files."""
        for descriptor, path in ((1, said["stdout"]), (2, said["stderr"])):
            capture = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if capture != descriptor:  # an earlier job may have closed it
                os.dup2(capture, descriptor)
                os.close(capture)
        os.chdir(said["output_dir"])
        os.environ["RAYGRID_JOB_ID"] = said["job_id"]
        os.environ["RAYGRID_SLOT"] = str(said.get("slot", 0))
        self._put_temporary_files(said.get("tmp_dir", self._home))

    def _put_temporary_files(self, place: str) -> None:
        """Have temporary files go somewhere else from now on, unless the pricer's settings or the program chose."""
        before, self._temporary = self._temporary, place
        for name in self._variables:
            os.environ[name] = place
        tempfile: Any = sys.modules.get("tempfile")
        if tempfile is not None and tempfile.tempdir == before:  # it stays with the place that it found first
            tempfile.tempdir = None

    def _leave(self) -> None:
        """Be nowhere: what is printed between jobs, by a thread, say, goes to the log of the process."""
        self._flush()
        os.dup2(self._nothing, 0)
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        os.chdir(self._home)
        self._put_temporary_files(self._home)
        self._reopen()

    def _reopen(self) -> None:
        """Have Python's own streams again, which the job may have closed or replaced."""
        stdin, stdout, stderr = self._streams
        if stdin is None or stdin.closed:
            stdin = open(0, closefd=False)  # noqa: SIM115 - it is for the jobs to come
        if stdout is None or stdout.closed:
            stdout = open(1, "w", closefd=False)  # noqa: SIM115 - likewise
        if stderr is None or stderr.closed:
            stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - likewise
        self._streams = sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr

    def _flush(self) -> None:
        """Nothing that was printed may wait in a buffer for the next job."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError, AttributeError):  # closed, say, as it may be in a cold one
                stream.flush()
        self._flush_libraries(None)

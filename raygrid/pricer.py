"""Make a Python program a warm pricer in one line: `serve(main)`.

The same program still runs cold, once for the input on its command line. Only a small part of the standard library is
imported, because every pricer loads this module. `docs/guides/warm-pricers.md` describes the protocol with the node.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

KEPT_MARKETS = 4  # the values that `setup` returned for the most recently used sets of shared data
_USAGE = 2


class PricerJob(NamedTuple):
    """One job of a pricer.

    Attributes:
        job_id: the client's id for it.
        input: the input file.
        output_dir: the job directory, which is also the working directory; the files in it at the end are the result.
        args: arguments of the submit.
        data: paths of shared data by name; the files are removed after the job, so `setup` must read what it keeps.
        market: the value that `setup` returned for this shared data; None without `setup`.
        slot: number of the job's slot on its node, from 0; jobs that run there at the same time have different slots.
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

    If a node started the program as a warm pricer, it runs one job after the other. Otherwise it runs `main` once in
    the current directory, with the first argument of the command line as the input, the others as `args`, and the files
    under `data/` as shared data.

    Args:
        main: prices one job. It returns the exit code (None for 0), as for `sys.exit`; an exception is exit code 1 with
            the traceback on stderr. Its output, also that of C libraries, goes into the job's result.
        setup: loads shared data, given as paths by name; called once for each different content.
        fork: run each job in a fork of this process, after the loading. Changes that a job makes to the process are
            then lost, and a crash needs no new loading. Not for programs that have threads after loading.
    """
    if os.environ.pop("RAYGRID_WARM", "") != "1":  # removed, so that a pricer that this program starts runs cold
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
    """Reads jobs from the node and answers; during a job the descriptors 0 to 2 belong to it."""

    def __init__(self, main: Main, setup: Setup | None, *, fork: bool) -> None:
        import ctypes  # noqa: PLC0415 - a cold run does not need these
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
        sys.stdout.flush()  # text that was printed while loading is neither an answer nor a job's output
        self._requests = os.fdopen(os.dup(0), "rb")
        self._answers = os.dup(1)
        self._log = os.dup(2)
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._leave()

    def run(self) -> NoReturn:
        """Answer every request, one on a line, until the node closes the pipe."""
        for line in self._requests:
            request = self._json.loads(line.decode("utf-8", "surrogateescape"))
            answer = {"number": request["number"], **self._answer(request)}
            os.write(self._answers, self._json.dumps(answer).encode() + b"\n")
        sys.exit(0)

    def _answer(self, request: dict[str, Any]) -> dict[str, int]:
        self._enter(request)
        try:
            job = PricerJob(
                request["job_id"],
                Path(request["input"]),
                Path(request["output_dir"]),
                tuple(request["args"]),
                {each["name"]: Path(each["path"]) for each in request["data"]},
                slot=request.get("slot", 0),  # missing if the node is older than this file
            )
            loaded: list[object] = []
            code = self._exit_code(lambda: loaded.append(self._market(job, request["data"])))
            if not loaded:  # `setup` failed or called sys.exit
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
            if len(self._markets) >= KEPT_MARKETS:  # before the next one is loaded, because they may be large
                self._markets.popitem(last=False)
            self._markets[key] = self._setup(job.data)
        self._markets.move_to_end(key)
        return self._markets[key]

    def _exit_code(self, work: Callable[[], object]) -> int:
        """Run a function; gives the exit code that a process would have had."""
        try:
            code = work()
        except SystemExit as stop:
            code = stop.code
        except BaseException:  # it ends this job only
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

    def _enter(self, request: dict[str, Any]) -> None:
        """Change to the job directory and send output to the job's files, as for a cold pricer."""
        for descriptor, path in ((1, request["stdout"]), (2, request["stderr"])):
            capture = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            if capture != descriptor:  # equal if an earlier job closed the descriptor
                os.dup2(capture, descriptor)
                os.close(capture)
        os.chdir(request["output_dir"])
        os.environ["RAYGRID_JOB_ID"] = request["job_id"]
        os.environ["RAYGRID_SLOT"] = str(request.get("slot", 0))
        self._put_temporary_files(request.get("tmp_dir", self._home))

    def _put_temporary_files(self, place: str) -> None:
        """Change the directory for temporary files, unless the pricer's settings or the program chose one."""
        before, self._temporary = self._temporary, place
        for name in self._variables:
            os.environ[name] = place
        tempfile: Any = sys.modules.get("tempfile")
        if tempfile is not None and tempfile.tempdir == before:  # tempfile caches the first directory that it found
            tempfile.tempdir = None

    def _leave(self) -> None:
        """Leave the job: output between jobs, for example of a thread, goes to the log of the process."""
        self._flush()
        os.dup2(self._nothing, 0)
        os.dup2(self._log, 1)
        os.dup2(self._log, 2)
        os.chdir(self._home)
        self._put_temporary_files(self._home)
        self._reopen()

    def _reopen(self) -> None:
        """Restore Python's standard streams, which the job may have closed or replaced."""
        stdin, stdout, stderr = self._streams
        if stdin is None or stdin.closed:
            stdin = open(0, closefd=False)  # noqa: SIM115 - used by later jobs
        if stdout is None or stdout.closed:
            stdout = open(1, "w", closefd=False)  # noqa: SIM115 - likewise
        if stderr is None or stderr.closed:
            stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - likewise
        self._streams = sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr

    def _flush(self) -> None:
        """Write out all buffers, so that no output of this job ends up in the next one's."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError, OSError, AttributeError):  # for example closed, which a job may do
                stream.flush()
        self._flush_libraries(None)

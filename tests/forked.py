"""The command `tollgate` in processes that are forked where its modules are imported already.

To start Python and import them takes a second or two of a processor, a fork some milliseconds, and tests start the
command hundreds of times. In everything else the process is like any: it has its own folder, environment, output,
signals and end. The tests of `serve` and the check of the wheel start the installed command.
"""

import atexit
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

Main = Callable[[], int | None]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.forked_modules"])
_LOCK = threading.Lock()  # the end of a process can be read once
_PR_SET_PDEATHSIG = 1


class Forked:
    """A process that runs `main`, a function of a module, with these arguments. The interface is that of `Popen`."""

    def __init__(
        self,
        main: Main,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: Path = Path(os.devnull),
        stderr: Path = Path(os.devnull),
    ) -> None:
        """What it writes is appended to the files."""
        for path in (stdout, stderr):
            path.touch()  # whoever waits for it may read them at once
        self._process = _CONTEXT.Process(
            target=_live, args=(main, list(arguments), str(cwd), dict(env), str(stdout), str(stderr))
        )
        with _LOCK:
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with _LOCK:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Raises `subprocess.TimeoutExpired`."""
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    main: Main, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. Raises `subprocess.TimeoutExpired`."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        process = Forked(main, arguments, cwd=cwd, env=env, stdout=stdout, stderr=stderr)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(list(arguments), code, stdout.read_text(), stderr.read_text())


def _live(main: Main, arguments: list[str], cwd: str, env: dict[str, str], stdout: str, stderr: str) -> None:
    if sys.platform == "linux":  # whatever becomes of the tests, it does not outlive them
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for number, path in (1, stdout), (2, stderr):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["tollgate", *arguments]
    sys.exit(main())


@atexit.register
def _end() -> None:
    """At the end of the tests: what a failed one has left would be waited for."""
    for process in multiprocessing.active_children():
        process.kill()

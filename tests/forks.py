"""Commands with other plugins than the tests' own, at the price of a fork instead of all imports.

A process that has these plugins is started once, and forks for each command: it imports torch,
Lightning and the rest no more. What needs a process of its own from the start (signals, several
ranks, an environment that is tested) does not belong here.
"""

import json
import os
import runpy
import select
import subprocess
import sys
import tempfile
import traceback
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIMEOUT = 900


class Forks:
    """Runs commands of anylatent that has `plugins`, modules that lie in the folder `path`, and
    what is installed beside `python`."""

    def __init__(self, plugins="", path="", python=sys.executable):
        places = [*filter(None, [str(path)]), str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "ANYLATENT_PLUGINS": plugins,
            "PYTHONPATH": os.pathsep.join(places),
            "OMP_NUM_THREADS": "1",
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [str(python), "-m", "tests.forks"]
        self.process = subprocess.Popen(command, env=environment, **pipes)

    def __call__(self, folder, *arguments, code=None):
        """The command in this folder, with a cache of its own; or `code`, with its arguments."""
        told = [str(argument) for argument in arguments]
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place) / "out", Path(place) / "err"
            cache = os.environ.get("ANYLATENT_CACHE") or str(Path(folder) / "cache")
            request = {"folder": str(folder), "told": told, "code": code, "cache": cache}
            print(
                json.dumps({**request, "out": str(out), "err": str(err)}), file=self.process.stdin
            )
            self.process.stdin.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT)
            if not ready:
                self.process.kill()
                raise TimeoutError(f"anylatent {' '.join(told)} takes longer than {TIMEOUT} s")
            number = int(self.process.stdout.readline())
            return subprocess.CompletedProcess(told, number, out.read_text(), err.read_text())


@lru_cache
def forks(plugins="", path="", python=sys.executable):
    """One for all tests of a session; it ends with it, when its input is closed."""
    return Forks(plugins, path, python)


def serve():
    """Reads a request a line, and writes the exit status of each."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what plugins print while they are imported
    for module in ("anylatent.core.training.loop", "torch.utils.tensorboard", "matplotlib.pyplot"):
        __import__(module)
    from anylatent.core.registry import groups

    groups()
    for line in sys.stdin:
        process = os.fork()
        if not process:
            child(json.loads(line))
        _, status = os.waitpid(process, 0)
        os.write(answers, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def child(request):
    """Becomes the command."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT), number)
    os.chdir(request["folder"])
    os.environ["ANYLATENT_CACHE"] = request["cache"]
    sys.argv = ["anylatent", *request["told"]]
    code = 0
    try:
        if request["code"] is None:
            runpy.run_module("anylatent.core.cli.main", run_name="__main__")
        else:
            exec(request["code"], {"__name__": "__main__"})
    except SystemExit as stopped:
        code = stopped.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve()

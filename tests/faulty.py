"""The command in a process of its own, on the tiny model, with a fault at a chosen moment of it.

Each is forked by the server of `forked.py`.
"""

import contextlib
import dataclasses
import functools
import importlib
import os
import resource
import signal
import time
from pathlib import Path

import forked
import pytest
import tiny
from logged import logged

RUN = (
    *("--model=tiny", "--mode=ens_div", "--num_members=2", "--learning_rate=0.01", "--epochs=2"),
    *("--batch_size=24", "--attacks=fgsm,rfgsm", "--epsilons=0.1", "--resume"),
)
# A checkpoint after each batch.
OFTEN = "--checkpoint_minutes=1e-9"


@dataclasses.dataclass(frozen=True)
class Fault:
    """What happens, and when: at the `count`-th call of a function, or writing of a file.

    Attributes:
        place: a function, as "training.callbacks.Recorder._save", or a file's pattern, as "step-*.keras".
        count: which of its calls in this process, from 1.
        when: "before" the call, or before the whole file takes its place; "after" that; or, of a file,
            "within": its first half is on disk.
        act: "kill", "stop" (the process stays, and holds what it holds) or "fill": no file may grow more.
    """

    place: str
    count: int = 1
    when: str = "before"
    act: str = "kill"

    def __str__(self):
        return f"{self.act} {self.when} {self.place} {self.count}"

    @property
    def of_file(self) -> bool:
        return Path(self.place).suffix in (".keras", ".json", ".jsonl", ".npy", ".md", ".csv", ".png")


def inject(fault: Fault) -> None:
    """Let the fault happen in this process."""
    if fault.of_file:
        owner, name = os, "replace"  # Every file gets to its place by it.
    else:
        room, module, *owners, name = fault.place.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(f"divtf.{room}.{module}"))
    original, calls = getattr(owner, name), []

    def faulty(*args, **kwargs):
        if not fault.of_file or Path(args[1]).match(fault.place):
            calls.append(args)
            if len(calls) == fault.count:
                if fault.when == "within":
                    os.truncate(args[0], Path(args[0]).stat().st_size // 2)
                if fault.when == "after":
                    original(*args, **kwargs)
                act(fault.act)
        return original(*args, **kwargs)

    setattr(owner, name, faulty)


def act(what: str) -> None:
    if what == "fill":  # Python ignores the signal that comes with it; writing fails with an error.
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what])


def execute(arguments: tuple[str, ...]) -> int:
    """What `python -m divtf.main` does with these arguments, in this process; the exit code."""
    from absl import flags

    from divtf.commands import command_line, config_flags, main

    values = flags.FlagValues()
    config_flags.define_flags(values)
    with pytest.MonkeyPatch.context() as patch:
        tiny.register(patch)
        patch.setattr(
            "divtf.storage.environment._commit", lambda: "a commit"
        )  # Who edits meanwhile changes no record.
        return command_line.execute(
            main.main,
            config_flags.config_from_flags,
            command_line.parse(["main", *arguments], values),
            values,
        )


def _child(arguments, fault, connection) -> None:
    # Pipes, not files: a full disk must not swallow what the process says.
    ends = {stream: os.pipe() for stream in (1, 2)}
    for stream, (_, entrance) in ends.items():
        os.dup2(entrance, stream)
    if fault:
        inject(fault)
    with contextlib.ExitStack() as streams:
        streams.enter_context(logged(connection.send))
        for stream, redirect in ((1, contextlib.redirect_stdout), (2, contextlib.redirect_stderr)):
            text = streams.enter_context(os.fdopen(os.dup(stream), "w", buffering=1))
            streams.enter_context(redirect(text))
        code = execute(arguments)
    said = []
    for stream, (exit_, entrance) in ends.items():
        os.close(stream)
        os.close(entrance)
        with os.fdopen(exit_) as handle:
            said.append(handle.read())
    connection.send((code, *said))


class Command:
    """A started command.

    Attributes:
        process: its process.
        code, out, err: once it has ended by itself, its exit code and what it said.
        lines: what it logged, as far as it was waited for.
    """

    def __init__(self, *arguments: str, fault: Fault | None = None):
        context = forked.context()
        self._connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_child, args=(arguments, fault, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.code, self.out, self.err = None, "", ""
        self.lines: list[str] = []

    def wait(self) -> "Command":
        """Wait for its end; a killed one has said nothing."""
        with contextlib.suppress(EOFError):
            while self.code is None:
                self._take()
        self.process.join(60)
        return self

    def until_waiting(self) -> "Command":
        """Wait until it waits for a directory that another process holds."""
        while not any("waits for process" in line for line in self.lines):
            self._take()
            assert self.code is None, (self.code, self.out, self.err)
        return self

    def _take(self) -> None:
        """Take the next line that it logs, or what it said at its end."""
        assert self._connection.poll(300), "a command takes no minutes"
        message = self._connection.recv()
        if isinstance(message, str):
            self.lines.append(message)
        else:
            self.code, self.out, self.err = message

    def until_stopped(self) -> "Command":
        """Wait until its fault has stopped it: it lives, and does nothing."""
        status = Path(f"/proc/{self.process.pid}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)
            assert self.process.is_alive()
        return self

    def kill(self) -> None:
        """End it as kill -9 does."""
        self.process.kill()
        self.process.join(60)


def start(directory: Path, *arguments: str, fault: Fault | None = None) -> Command:
    """Start the tiny run in a directory, or go on with it."""
    return Command(*RUN, f"--run_dir={directory}", *arguments, fault=fault)


def run(directory: Path, *arguments: str, fault: Fault | None = None) -> Command:
    """Do the tiny run in a directory, or go on with it, to its end."""
    return start(directory, *arguments, fault=fault).wait()

"""Workers: who is the chief, who is lost, what all must agree on; and real ones, of which one is killed."""

import contextlib
import json
import signal
import socket
import time
import types

import process
import pytest
import tensorflow as tf
from followed import EVERY_BATCH
from run_files import metrics

from divtf.errors import InputError
from divtf.runtime import workers
from divtf.runtime.workers import WorkerTeam
from divtf.storage import run_directory


def strategy(addresses, job="worker", index=0):
    """What a team asks a strategy of several workers for: its place, and the scope."""
    cluster = types.SimpleNamespace(as_dict=lambda: addresses)
    resolver = types.SimpleNamespace(task_type=job, task_id=index, cluster_spec=lambda: cluster)
    return types.SimpleNamespace(cluster_resolver=resolver, scope=contextlib.nullcontext)


@pytest.mark.parametrize(
    ("addresses", "job", "index", "expected"),
    [
        ({"worker": ["a:1", "b:1"]}, "worker", 0, True),
        ({"worker": ["a:1", "b:1"]}, "worker", 1, False),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "chief", 0, True),
        ({"chief": ["a:1"], "worker": ["b:1"]}, "worker", 0, False),
    ],
)
def test_chief_is_the_first_worker_unless_one_is_named(addresses, job, index, expected):
    team = WorkerTeam(strategy(addresses, job, index))
    assert team.is_chief is expected and team.has_several


@pytest.fixture
def listening():
    """The address of a socket that listens."""
    with socket.create_server(("localhost", 0)) as server:
        yield f"localhost:{server.getsockname()[1]}"


@pytest.fixture
def closed():
    """An address where nobody listens: the socket holds it only."""
    with socket.socket() as held:
        held.bind(("localhost", 0))
        yield f"localhost:{held.getsockname()[1]}"


LOST = tf.errors.UnavailableError(None, None, "Connection reset by peer")


@pytest.mark.parametrize("within", ["clear_errors", "scope"])
def test_lost_worker_is_named_by_whether_it_answers(within, listening, closed):
    """The first listens and the second does not; the third is this process, which is not asked."""
    team = WorkerTeam(strategy({"worker": [listening, closed, "localhost:1"]}, index=2))
    expected = rf"stay until the training's end\. Received: worker 1 \({closed}\) is gone; .*--resume$"
    with pytest.raises(InputError, match=expected), getattr(team, within)():
        raise LOST


def test_all_lost_workers_are_named(closed):
    team = WorkerTeam(strategy({"chief": [closed], "worker": ["localhost:1", "[::1]:1"]}, index=0))
    expected = rf"chief 0 \({closed}\), worker 1 \(\[::1\]:1\) is gone"
    with pytest.raises(InputError, match=expected), team.clear_errors():
        raise LOST


def test_error_while_all_workers_answer_stays_what_it_is(listening):
    team = WorkerTeam(strategy({"worker": ["localhost:1", listening]}))
    with pytest.raises(tf.errors.UnavailableError), team.clear_errors():
        raise LOST


def test_error_that_is_no_lost_worker_passes(closed):
    team = WorkerTeam(strategy({"worker": ["localhost:1", closed]}))
    with pytest.raises(tf.errors.InvalidArgumentError), team.clear_errors():
        raise tf.errors.InvalidArgumentError(None, None, "NaN")


class Meeting(WorkerTeam):
    """A team whose members are asked one after another, the chief first: the others take its value."""

    def __init__(self, index, met):
        super().__init__(strategy({"worker": ["a:1", "b:1"]}, index=index))
        self._met = met

    def from_chief(self, value):
        self._met.append("chief came" if self.is_chief else "other came")
        if self.is_chief:
            type(self).value = value
        return self.value


def test_workers_of_one_value_agree_and_another_value_is_refused():
    chief, other = Meeting(0, []), Meeting(1, [])
    chief.require_same({"seed": 0, "mode": "div"}, "the chief's", "another")
    other.require_same({"mode": "div", "seed": 0}, "the chief's", "another")
    with pytest.raises(InputError, match=r"Expected the chief's\. Received: another"):
        other.require_same({"mode": "div", "seed": 1}, "the chief's", "another")


@pytest.mark.parametrize(
    ("index", "expected"), [(0, ["acts", "chief came"]), (1, ["other came", "acts"])], ids=["chief", "other"]
)
def test_chief_acts_before_the_meeting_and_others_after(index, expected):
    met = []
    Meeting.value = 0
    with Meeting(index, met).chief_first():
        met.append("acts")
    assert met == expected


def test_value_of_the_first_replica_is_what_all_receive():
    """On two replicas of a mirrored strategy's kind: by a process of two devices."""
    assert process.result("received", devices=2, values=[7, 2**55 + 1]) == [7, 2**55 + 1]


def test_other_strategies_have_a_team_of_one():
    team = workers.team_of(tf.distribute.get_strategy())
    assert type(team) is workers.Team and team.is_chief


# Real workers.


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory):
    """The directory of a run that two workers did undisturbed."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    codes = [code for code, _, _ in process.ended(process.start_workers("run", run_dir=directory, **RUN))]
    assert codes == [0, 0]
    return directory


RUN = {"batch_size": 13, "epochs": 2, "mode": "base", "attacks": [], "resume": True}


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_lost_worker_ends_the_job_and_it_goes_on_bit_for_bit(tmp_path, victim, run_of_two):
    directory = tmp_path / "run"
    values = RUN | {"checkpoint_minutes": EVERY_BATCH, "run_dir": directory}

    def deadly(index):
        return {"kill_at": 9} if index == victim else {}

    started = process.start_workers("run", of_worker=deadly, **values)
    assert started[victim].wait(timeout=300) == -signal.SIGKILL
    before = time.monotonic()
    code = started[1 - victim].wait(timeout=60)
    took = time.monotonic() - before
    _, _, err = process.ended(started)[1 - victim]
    assert code == 2, took
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert f"Received: worker {victim} (localhost:" in line and "--resume" in line
    assert "Traceback" not in err
    # Damage is mended by the chief alone.
    (directory / run_directory.METRICS).write_text("{")
    others = process.start_workers("run", of_worker=lambda index: {"writes": index == 0}, **values)
    for code, _, err in process.ended(others):
        assert code == 0, err[-3000:]
    assert metrics(directory) == metrics(run_of_two)
    weights = [
        json.loads((place / run_directory.RESULTS).read_text())["provenance"]["weights"]
        for place in (run_of_two, directory)
    ]
    assert weights[0] == weights[1]

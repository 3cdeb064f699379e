"""A worker's place in the cluster of TF_CONFIG, and what is refused."""

import json
import sys

import command_lines
import faulty
import forked
import pytest

from divtf.errors import InputError
from divtf.runtime import cluster_place


def cluster(**changes):
    task = {"type": "worker", "index": 0} | changes.pop("task", {})
    return {"cluster": {"worker": ["one:2222", "two:2222"]}, "task": task} | changes


BAD_CLUSTERS = {
    "too deep": "[" * 100_000,
    "none": "",
    "not JSON": "{",
    "a list": "[]",
    "no task": json.dumps({"cluster": {"worker": ["one:2222"]}}),
    "no cluster": json.dumps({"task": {"type": "worker", "index": 0}}),
    "index out of range": json.dumps(cluster(task={"index": 2})),
    "negative index": json.dumps(cluster(task={"index": -1})),
    "index as text": json.dumps(cluster(task={"index": "0"})),
    "true for an index": json.dumps(cluster(task={"index": True})),
    "unknown task": json.dumps(cluster(task={"type": "chief"})),
    "parameter server": json.dumps(cluster(cluster={"worker": ["one:2222"], "ps": ["two:2222"]})),
    "no workers": json.dumps(cluster(cluster={"worker": []})),
    "no port": json.dumps(cluster(cluster={"worker": ["one", "two:2222"]})),
    "port too large": json.dumps(cluster(cluster={"worker": ["one:65536", "two:2222"]})),
    "address twice": json.dumps(cluster(cluster={"worker": ["one:2222", "one:2222"]})),
    "two chiefs": json.dumps(cluster(cluster={"chief": ["one:1", "two:1"], "worker": ["three:1"]})),
    "addresses as text": json.dumps(cluster(cluster={"worker": "one:2222"})),
}


@pytest.mark.parametrize("case", BAD_CLUSTERS)
def test_bad_cluster_is_refused_before_anything_waits(case, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", BAD_CLUSTERS[case])
    with pytest.raises(InputError, match=r"Expected TF_CONFIG as .* for --strategy=multi_worker. Received: "):
        cluster_place.join()


@pytest.mark.parametrize(
    ("values", "place"),
    [
        (cluster(), "worker 0"),
        (cluster(task={"index": 1}), "worker 1"),
        (
            cluster(cluster={"chief": ["[::1]:80"], "worker": ["10.0.0.2:80"]}, task={"type": "chief"}),
            "chief 0",
        ),
    ],
)
def test_place_in_the_cluster_is_read(values, place):
    found = cluster_place.read_place(json.dumps(values))
    assert str(found) == place and len(found.addresses) == 2


def test_table_is_refused_on_several_workers():
    with pytest.raises(InputError, match=r"--strategy=single or mirrored for a table.*=multi_worker"):
        command_lines.parts("--strategy=multi_worker")


def command(*arguments):
    sys.exit(faulty.execute(arguments))


def test_missing_cluster_is_one_line_and_exit_code_2():
    code, _, err = forked.Forked(command, "--strategy=multi_worker").ended()
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: Expected TF_CONFIG as ") and "Traceback" not in err

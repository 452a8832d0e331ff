"""Control groups of workers, on the real kernel."""

import subprocess
import threading
import uuid

import pytest

from serving.workers.cpu_quota import make_cpu_group, remove_empty_groups


def test_a_group_is_removed_once_its_last_process_has_ended() -> None:
    owner = f"test-{uuid.uuid4().hex[:8]}"
    group = make_cpu_group(owner, "worker")
    if group is None:
        pytest.skip("no control group can be made here: needs root, and cgroups")
    process = subprocess.Popen(["sleep", "1"])
    (group.directory / "cgroup.procs").write_text(str(process.pid))
    waiting = threading.Thread(target=process.wait)
    waiting.start()
    remove_empty_groups(owner, patience_s=0.0)
    assert group.directory.exists()
    remove_empty_groups(owner, patience_s=30.0)
    assert not group.directory.exists()
    waiting.join()


def test_a_group_that_is_there_already_is_none_and_no_error() -> None:
    owner = f"test-{uuid.uuid4().hex[:8]}"
    first = make_cpu_group(owner, "worker")
    if first is None:
        pytest.skip("no control group can be made here: needs root, and cgroups")
    process = subprocess.Popen(["sleep", "60"])
    (first.directory / "cgroup.procs").write_text(str(process.pid))
    try:
        assert make_cpu_group(owner, "worker") is None
    finally:
        process.kill()
        process.wait()
        remove_empty_groups(owner, patience_s=30.0)

"""The supervisor: no task is lost, whatever happens to workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_build

from mmdata.errors import RunError
from pipelines.build.executor import LocalExecutor, Task
from pipelines.build.worker import most_held


def test_tasks_come_back_under_their_keys(tmp_path: Path) -> None:
    with LocalExecutor(2, tmp_path) as pool:
        assert pool.run(Task(str(i), toy_build.double, i) for i in range(20)) == {str(i): 2 * i for i in range(20)}
        assert pool.run([Task("again", toy_build.double, 4)]) == {"again": 8}
    assert pool.peak_bytes > 0


def test_memory_that_a_worker_held_for_a_moment_is_counted(tmp_path: Path) -> None:
    with LocalExecutor(1, tmp_path) as pool:
        pool.run([Task("a", toy_build.spike, 400_000_000)])
    assert pool.peak_bytes > 400_000_000


def test_memory_that_the_supervisor_held_before_is_no_workers(tmp_path: Path) -> None:
    held = np.ones(most_held() + 100_000_000, np.uint8)
    size = len(held)
    with LocalExecutor(1, tmp_path) as pool:
        assert pool.run([Task("a", toy_build.most, None)])["a"] < size


def test_a_worker_is_pinned_and_lean(tmp_path: Path) -> None:
    with LocalExecutor(1, tmp_path) as pool:
        pid, cores, heavy = pool.run([Task("w", toy_build.where, None)])["w"]
    assert pid != os.getpid() and len(cores) == 1
    assert "jax" not in heavy and "av" not in heavy


def test_a_killed_workers_task_is_run_again(tmp_path: Path) -> None:
    with LocalExecutor(2, tmp_path) as pool:
        tasks = [Task(str(i), toy_build.die_once, (str(tmp_path / f"flag{i % 2}"), i)) for i in range(6)]
        poison: list[str] = []
        assert pool.run(tasks, on_poison=lambda t, s, c: poison.append(s)) == {str(i): str(i) for i in range(6)}
    assert not poison


def test_a_step_that_kills_its_worker_is_left_out(tmp_path: Path) -> None:
    met = []
    with LocalExecutor(2, tmp_path) as pool:
        tasks = [Task("a", toy_build.steps, ["1", "bad 2", "3", "bad 4", "5"]), Task("b", toy_build.steps, ["6"])]
        found = pool.run(tasks, on_poison=lambda task, step, cause: met.append((task.key, step, cause)))
    assert found == {"a": ["1", "3", "5"], "b": ["6"]}
    assert met == [("a", "bad 2", "SIGSEGV"), ("a", "bad 4", "SIGSEGV")]


def test_a_stuck_worker_is_noticed(tmp_path: Path) -> None:
    met = []
    with LocalExecutor(1, tmp_path, stuck_s=3) as pool:
        tasks = [Task("a", toy_build.steps, ["1", "hang", "3"])]
        assert pool.run(tasks, on_poison=lambda t, s, cause: met.append((s, cause))) == {"a": ["1", "3"]}
    assert met == [("hang", "no progress in 3 s")]


def test_a_worker_without_memory_is_noticed(tmp_path: Path) -> None:
    """Real memory, to a real limit: the step which takes it is left out, and the next one has a worker of its own."""
    met = []
    with LocalExecutor(1, tmp_path, memory_bytes=300_000_000) as pool:
        tasks = [Task("a", toy_build.steps, ["1", "eat", "3"]), Task("b", toy_build.steps, ["4"])]
        found = pool.run(tasks, on_poison=lambda t, s, cause: met.append((s, cause)))
    assert found == {"a": ["1", "3"], "b": ["4"]}
    assert met == [("eat", "out of memory (more than 300,000,000 bytes)")]


def test_a_memory_error_is_no_failure_of_the_unit(tmp_path: Path) -> None:
    """It may meet another document than the one that holds the memory: so the unit is isolated."""
    met = []
    with LocalExecutor(1, tmp_path) as pool:
        tasks = [Task("a", toy_build.steps, ["1", "ask for too much", "3"])]
        assert pool.run(tasks, on_poison=lambda t, s, cause: met.append((s, cause))) == {"a": ["1", "3"]}
    (step, cause), *others = met
    assert step == "ask for too much" and cause.startswith("out of memory (Unable to allocate") and not others


def test_a_task_may_be_isolated_from_the_start(tmp_path: Path) -> None:
    begun = []
    with LocalExecutor(1, tmp_path) as pool:
        task = Task("a", toy_build.note_and_die, (str(tmp_path / "runs"), "bad"), isolate=True)
        pool.run([task], on_poison=lambda t, step, cause: begun.append(step))
    assert begun == ["bad"] and (tmp_path / "runs").read_text() == "1" * 3  # killed twice, and done


def test_one_death_in_isolation_condemns_no_step(tmp_path: Path) -> None:
    """The kernel, or an operator, may kill the worker of one unit three times at what is current then."""
    (tmp_path / "deaths").touch()
    met: list[str] = []
    with LocalExecutor(1, tmp_path) as pool:
        task = Task("a", toy_build.killed_thrice, (str(tmp_path / "deaths"), "1", "2", "3"))
        assert pool.run([task], on_poison=lambda t, step, cause: met.append(step)) == {"a": ["1", "2", "3"]}
    assert not met and (tmp_path / "deaths").read_text() == "111"


def test_time_in_which_the_supervisor_was_stopped_is_no_lack_of_progress(tmp_path: Path) -> None:
    """Ctrl-Z stops the whole group for longer than a worker may say nothing; then it goes on."""
    words = f"import toy_build as t; from pathlib import Path; t.supervise_slow_steps(Path({str(tmp_path)!r}), 3.0)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    supervisor = subprocess.Popen([sys.executable, "-c", words], env=environment, start_new_session=True)
    for _ in range(600):
        if (tmp_path / "step").exists():
            break
        time.sleep(0.05)
    os.killpg(supervisor.pid, signal.SIGSTOP)
    step = (tmp_path / "step").read_text()
    time.sleep(4.5)
    os.killpg(supervisor.pid, signal.SIGCONT)
    assert supervisor.wait(60) == 0
    assert step != "3" and (tmp_path / "found").read_text() == "4 []"
    assert (tmp_path / "logs" / "worker-0.log").read_text() == ""


def starts(folder: Path, code: str) -> dict[str, str]:
    """An environment whose Python processes run `code` as they start."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_worker_killed_before_it_was_ready_is_started_again(tmp_path: Path, workers: int) -> None:
    code = f"""
import os
with open({str(tmp_path / "starts")!r}, "a") as file:
    file.write("1")
    file.flush()
    if file.tell() <= 2:
        os.kill(os.getpid(), 9)
"""
    with LocalExecutor(workers, tmp_path / "logs", starts(tmp_path / "site", code)) as pool:
        tasks = [Task(str(i), toy_build.double, i) for i in range(6)]
        assert pool.run(tasks) == {str(i): 2 * i for i in range(6)}
    assert 3 <= len((tmp_path / "starts").read_text()) <= workers + 2


def test_a_worker_that_never_starts_stops_the_run_with_what_it_printed(tmp_path: Path) -> None:
    code = f"""
with open({str(tmp_path / "starts")!r}, "a") as file:
    file.write("1")
print("no such library")
import os
os._exit(5)
"""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-0.log").write_text("of a worker before it\n")
    with (
        LocalExecutor(1, tmp_path / "logs", {**starts(tmp_path / "site", code), "PYTHONUNBUFFERED": "1"}) as pool,
        pytest.raises(RunError, match=r"does not start, 3 times in a row .exit status 5.: no such library; its log is"),
    ):
        pool.run([Task("a", toy_build.double, 1)])
    assert (tmp_path / "starts").read_text() == "111"
    silent = starts(tmp_path / "other", "import os; os._exit(5)")
    with LocalExecutor(1, tmp_path / "logs", silent) as pool, pytest.raises(RunError, match="it printed nothing"):
        pool.run([Task("a", toy_build.double, 1)])


def test_a_poison_step_of_an_earlier_run_is_not_met_again(tmp_path: Path) -> None:
    with LocalExecutor(1, tmp_path) as pool:
        begun = time.monotonic()
        assert pool.run([Task("a", toy_build.steps, ["1", "bad"], {"bad": "SIGSEGV"})]) == {"a": ["1"]}
    assert time.monotonic() - begun < 10


def test_a_unit_that_dies_at_no_step_stops_the_run_with_its_name(tmp_path: Path) -> None:
    with LocalExecutor(1, tmp_path) as pool, pytest.raises(RunError, match=r"unit a/b kills its worker .exit status 3"):
        pool.run([Task("a/b", toy_build.die_always, None)])


def test_an_exception_of_ours_stops_the_run_with_the_traceback_in_the_log(tmp_path: Path) -> None:
    with LocalExecutor(1, tmp_path) as pool, pytest.raises(RunError, match="unit x failed: KeyError"):
        pool.run([Task("x", toy_build.fail, None)])
    assert "our own bug" in (tmp_path / "worker-0.log").read_text()


def test_workers_leave_when_their_supervisor_is_gone(tmp_path: Path) -> None:
    with LocalExecutor(1, tmp_path) as pool:
        pid, _, _ = pool.run([Task("w", toy_build.where, None)])["w"]
        worker = pool._workers[0]
        assert worker is not None
        worker.connection.close()  # what the death of the supervisor does, where the kernel does no more
        for _ in range(100):
            if worker.process.poll() is not None:
                break
            time.sleep(0.05)
        assert worker.process.poll() is not None, f"{pid} is still there"
        pool._workers[0] = None


def test_a_worker_ends_with_its_supervisor_even_in_native_code(tmp_path: Path) -> None:
    """Code that holds the GIL lets no thread of the worker notice; the kernel does."""
    words = (
        f"import toy_build as t; from pathlib import Path; t.supervise_one_that_holds_the_gil(Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
    supervisor = subprocess.Popen([sys.executable, "-c", words], env=environment)
    for _ in range(600):
        if (tmp_path / "pid").exists():
            break
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    supervisor.kill()
    supervisor.wait()
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} is still there")


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"

"""Workers of multiprocessing, by each start method, whose work is done on native threads."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from pool import LINES, Pool, count_lines, log_into, write_logs

TASKS = 6


def work(task):
    """Return how many lines are in this task's files when its threads have been joined."""
    return write_logs("logs", f"task-{task}")


def work_and_end(task):
    """End right after the join, as most workers do."""
    write_logs("logs", f"last-{task}")


def idle():
    """Do nothing, beside a parent whose native threads have open files."""


def run_processes(context, target, *names):
    processes = [context.Process(target=target, args=name) for name in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def main(method):
    context = multiprocessing.get_context(method)
    os.mkdir("logs")
    with Pool() as pool:
        log = log_into("logs", "parent")
        pool.call(log, LINES)
        print("beside:", run_processes(context, idle, (), ()))
        pool.call(log, LINES)
    print("each line once:", count_lines("logs", "parent-*.log"))

    # A worker for each task: it ends right after it. Printed when no thread of the pool forks any
    # more: a child that is forked in that moment writes what stdout has not written yet once more.
    with context.Pool(2, maxtasksperchild=1) as workers:
        lines = workers.map(work, range(TASKS), chunksize=1)
        workers.close()
        workers.join()
    print("pool:", lines)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        lines = list(executor.map(work, range(TASKS, 2 * TASKS)))
    print("executor:", lines)
    print("processes:", run_processes(context, work_and_end, *((task,) for task in range(TASKS))))
    print("in all:", count_lines("logs", "last-*.log"), count_lines("logs"))


if __name__ == "__main__":
    main(sys.argv[1])

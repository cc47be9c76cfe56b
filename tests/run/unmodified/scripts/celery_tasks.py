"""A task whose work is done on native threads, and its broker: folders of where it runs."""

from celery import Celery
from pool import write_logs

app = Celery("tasks", broker="filesystem://", backend="file://results")
app.conf.update(
    broker_transport_options={
        "data_folder_in": "queue",
        "data_folder_out": "queue",
        "control_folder": "control",
        "polling_interval": 0.05,
    },
    broker_connection_retry_on_startup=True,
    worker_max_tasks_per_child=1,  # a process ends right after its task
)


@app.task
def work(number):
    """Return how many lines are in this task's files when its threads have been joined."""
    return write_logs("logs", f"task-{number}")

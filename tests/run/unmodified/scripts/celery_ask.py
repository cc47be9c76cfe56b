"""Has the worker do some tasks, and prints what it answers."""

from celery_tasks import work

answers = [work.delay(number) for number in range(6)]
print([answer.get(timeout=60, interval=0.05) for answer in answers])

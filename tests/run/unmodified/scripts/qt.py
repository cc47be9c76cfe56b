"""Runnables on the threads of Qt's pool."""

from PySide6.QtCore import QCoreApplication, QMutex, QMutexLocker, QRunnable, QThreadPool
from witness import visit

app = QCoreApplication([])
mutex = QMutex()
done = []


class Job(QRunnable):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def run(self):
        visit()
        with QMutexLocker(mutex):
            done.append(self.number)


pool = QThreadPool()
pool.setMaxThreadCount(2)
for number in range(200):
    pool.start(Job(number))
assert pool.waitForDone(30000)
del pool  # waits for its threads, with the GIL held
print(sorted(done) == list(range(200)))

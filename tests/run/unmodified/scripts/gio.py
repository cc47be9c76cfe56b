"""Tasks that Gio runs on the threads of its pool."""

from gi.repository import Gio, GLib
from witness import visit

loop = GLib.MainLoop()
results = []


def work(task, _source, _data, _cancellable):
    visit()
    task.return_int(7)


def on_done(_source, task, _data):
    results.append(task.propagate_int())
    if len(results) < 100:
        start()
    else:
        loop.quit()


def start():
    Gio.Task.new(None, None, on_done, None).run_in_thread(work)


start()
loop.run()
print(len(results), set(results))

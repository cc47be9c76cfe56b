import json
import sys
import threading

from pool import Pool, write_logs
from witness import told, visit


def say(text):
    def callback(thread, call):
        visit()
        # In one piece, on whichever thread: print() would make two of it.
        sys.stdout.write(f"{text} {thread} {call}\n")

    return callback


# %%
pool = Pool()
pool.call(say("first cell"), 3)

# %%
pool.call(say("second cell"), 3)

# %%
write_logs(".", "cell")


# %%
def fail(_thread, _call):
    raise ValueError("as expected")


with Pool(1) as short:
    short.call(fail, 2)

# %%
pool.call(lambda _thread, _call: sys.stdout.write(f"{type(threading.current_thread())}\n"))
pool.__exit__()

# %%
1 / 0  # noqa: B018

# %%
with open("witness.json", "w") as file:
    json.dump(told(), file)

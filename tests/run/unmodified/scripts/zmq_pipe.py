"""Messages between two Python threads over ZeroMQ, whose IO thread never enters Python."""

import threading

import zmq
from witness import visit

context = zmq.Context()
receiver = context.socket(zmq.PULL)
receiver.bind("inproc://pipe")


def send():
    with context.socket(zmq.PUSH) as sender:
        sender.connect("inproc://pipe")
        for number in range(1000):
            visit()
            sender.send(str(number).encode())


thread = threading.Thread(target=send)
thread.start()
print(sum(int(receiver.recv()) for _ in range(1000)))
thread.join()
receiver.close()
context.term()

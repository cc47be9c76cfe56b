"""A kernel of IPython's and its client: notebook.py, whose native threads call back."""

from pathlib import Path

from jupyter_client.manager import KernelManager


def run(client, cell):
    """Return what the cell said and left, the lines of several threads in a fixed order."""
    heard = []

    def hear(message):
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            heard.append(content["text"])
        elif kind == "execute_result":
            heard.append(content["data"]["text/plain"])
        elif kind == "error":
            heard.append(content["ename"])

    reply = client.execute_interactive(cell, timeout=60, output_hook=hear)
    # A traceback names a file and an address, which are other ones each time.
    lines = [line for line in "".join(heard).splitlines() if "/" not in line and "0x" not in line]
    return reply["content"]["status"], sorted(lines)


manager = KernelManager(transport="ipc", ip="kernel")
manager.start_kernel()
process = manager.provisioner.process
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=60)
for cell in Path(__file__).with_name("notebook.py").read_text().split("# %%\n"):
    print(*run(client, cell))
client.shutdown()
print("exit code", process.wait(60))
client.stop_channels()
manager.cleanup_resources()

"""Answers lines in asyncio that Asio reads and writes, for three clients of its own."""

import asyncio

from asio_server import Request, Server

import moored


async def answer(request: Request) -> None:
    """Take some time, as a query would, while other requests are answered."""
    await asyncio.sleep(0.001)
    request.answer(request.line.upper().encode())


async def serve(server: Server) -> int:
    """Answer until the server stops; count the requests."""
    count = 0
    async with asyncio.TaskGroup() if hasattr(asyncio, "TaskGroup") else Tasks() as tasks:
        async for batch in moored.Channel(server):
            count += len(batch)
            for request in batch:
                tasks.create_task(answer(request))
    return count


class Tasks:
    """What asyncio.TaskGroup is from Python 3.11 on, without its care for errors."""

    async def __aenter__(self) -> "Tasks":
        """Begin with none."""
        self._tasks: list[asyncio.Task[None]] = []
        return self

    def create_task(self, coroutine) -> None:
        """Start one."""
        self._tasks.append(asyncio.ensure_future(coroutine))

    async def __aexit__(self, *_: object) -> None:
        """Wait for all."""
        await asyncio.gather(*self._tasks)


async def client(port: int, name: str) -> list[str]:
    """Send ten lines at once, and read ten answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.writelines(f"{name} {number}\n".encode() for number in range(10))
    answers = [(await reader.readline()).decode().strip() for _ in range(10)]
    writer.close()
    return sorted(answers)


async def main() -> None:
    """Serve three clients, then stop."""
    server = Server()
    serving = asyncio.ensure_future(serve(server))
    for answers in await asyncio.gather(*(client(server.port, name) for name in "abc")):
        print(f"{len(answers)} answers, {answers[0]} to {answers[-1]}")
    server.stop()
    print(f"{await serving} requests")


asyncio.run(main())

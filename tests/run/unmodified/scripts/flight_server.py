"""A Flight server of Arrow's, whose requests come on gRPC's native threads, and its client."""

import pyarrow
import pyarrow.flight
from witness import visit

TABLE = pyarrow.table({"x": range(100)})


class Server(pyarrow.flight.FlightServerBase):
    """Gives the table away in batches, and counts what it gets."""

    def do_get(self, _context, _ticket):
        visit()
        return pyarrow.flight.GeneratorStream(TABLE.schema, self.batches())

    def batches(self):
        for batch in TABLE.to_batches(max_chunksize=10):
            visit()
            yield batch

    def do_put(self, _context, _descriptor, reader, writer):
        visit()
        writer.write(str(reader.read_all().num_rows).encode())

    def do_action(self, _context, _action):
        visit()
        raise ValueError("as expected")


rows, answers, failures = 0, set(), 0
with (
    Server("grpc+tcp://127.0.0.1:0") as server,
    pyarrow.flight.FlightClient(("127.0.0.1", server.port)) as client,
):
    for _ in range(20):
        rows += client.do_get(pyarrow.flight.Ticket(b"table")).read_all().num_rows
        descriptor = pyarrow.flight.FlightDescriptor.for_path("table")
        writer, reader = client.do_put(descriptor, TABLE.schema)
        with writer:
            writer.write_table(TABLE)
            writer.done_writing()
            answers.add(reader.read().to_pybytes())
        try:
            list(client.do_action("fails"))
        except pyarrow.ArrowInvalid:
            failures += 1
print(rows, answers, failures)

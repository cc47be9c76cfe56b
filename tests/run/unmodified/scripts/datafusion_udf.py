"""Python functions in queries of DataFusion, which runs them on the threads of its runtime."""

import pyarrow
import pyarrow.compute
from datafusion import Accumulator, SessionConfig, SessionContext, udaf, udf
from witness import visit


def double(numbers):
    visit()
    return pyarrow.compute.multiply(numbers, 2)


class Total(Accumulator):
    """An aggregate: one object for each group and partition, which is used on several threads."""

    def __init__(self):
        self.total = 0

    def update(self, values):
        visit()
        self.total += pyarrow.compute.sum(values).as_py() or 0

    def merge(self, states):
        visit()
        self.total += pyarrow.compute.sum(states[0]).as_py() or 0

    def state(self):
        return [pyarrow.scalar(self.total)]

    def evaluate(self):
        return pyarrow.scalar(self.total)


number = pyarrow.int64()
context = SessionContext(SessionConfig().with_target_partitions(4).with_batch_size(100))
context.register_udf(udf(double, [number], number, "volatile", name="double"))
context.register_udaf(udaf(Total, [number], number, [number], "stable", name="total"))
table = pyarrow.table({"x": range(20000), "kind": [number % 5 for number in range(20000)]})
context.register_record_batches(
    "numbers", [[batch] for batch in table.to_batches(max_chunksize=5000)]
)
print(context.sql("SELECT sum(double(x)) AS sum FROM numbers").to_pydict())
query = "SELECT kind, total(double(x)) AS total FROM numbers GROUP BY kind ORDER BY kind"
print(context.sql(query).to_pydict())

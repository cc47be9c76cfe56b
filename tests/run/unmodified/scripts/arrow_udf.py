"""A Python function that Arrow calls from its threads while it scans a dataset."""

import pyarrow
import pyarrow.compute
import pyarrow.dataset
from witness import visit


def double(_context, numbers):
    visit()
    return pyarrow.compute.multiply(numbers, 2)


pyarrow.compute.register_scalar_function(
    double, "double", {"summary": "", "description": ""}, {"x": pyarrow.int64()}, pyarrow.int64()
)
pyarrow.set_cpu_count(2)
table = pyarrow.table({"x": pyarrow.array(range(20000), pyarrow.int64())})
data = pyarrow.dataset.dataset(table.to_batches(max_chunksize=100))
call = pyarrow.dataset.Expression._call("double", [pyarrow.dataset.field("x")])
scanned = data.to_table(columns={"y": call}, use_threads=True)
print(pyarrow.compute.sum(scanned["y"]))

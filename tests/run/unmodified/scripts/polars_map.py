"""Python functions in a lazy query of Polars, which has threads of its own."""

import polars
from witness import visit


def double(column):
    visit()
    return column * 2


frame = polars.DataFrame({"group": [number % 50 for number in range(5000)], "x": range(5000)})
query = (
    frame.lazy()
    .group_by("group")
    .agg(polars.col("x").map_batches(double, return_dtype=polars.Int64).sum())
    .sort("group")
)
print(query.collect()["x"].to_list())

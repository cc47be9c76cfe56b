"""A Python function in a query of DuckDB, which shares the work between its threads and ours."""

import duckdb
from witness import foreign_calls, visit


def double(number: int) -> int:
    visit()
    return 2 * number


connection = duckdb.connect()
connection.execute("SET threads = 2")
connection.execute("CREATE TABLE numbers AS SELECT i FROM range(400000) t(i)")
connection.create_function("double", double)
for _ in range(20):
    (row,) = connection.execute("SELECT sum(double(i)) FROM numbers").fetchall()
    if foreign_calls() > 10 * 2048:  # some vectors of rows were theirs
        break
print(row)
connection.close()

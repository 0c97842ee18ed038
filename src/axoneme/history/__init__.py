"""Flows beyond memory: kept in Parquet files (`keeper`, `spool`, `tables`), read again as flows (`recorded`),
asked in SQL (`sql`), and handed to programs as Arrow tables (`connection`).

`schema` has the columns, which are the same everywhere. pyarrow and duckdb, which are large, are imported
only where something is asked or written: the process that keeps the files lives without them.
"""

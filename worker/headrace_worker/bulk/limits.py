"""Limits of the files of a bulk run. They hold before a file is read, so that no file fills the memory."""

from __future__ import annotations

#: Rows of a slice, the table that is in memory at a time, and its bytes as the file says. The smaller limit holds.
SLICE_ROWS, SLICE_BYTES = 10_000, 64 * 1024**2
#: Columns of a file.
MAX_COLUMNS = 10_000
#: Bytes of a Parquet file's footer.
MAX_FOOTER_BYTES = 64 * 1024**2
#: Bytes of a column of a row group that are read at a time. They stay in memory until the row group is read.
READ_BYTES = 1024**2
#: Bytes of a row group, decompressed.
MAX_GROUP_BYTES = 4 * 1024**3
#: Decompressed bytes for each compressed byte, beyond the first SLICE_BYTES of a row group or file. A table that
#: people save has 2 to 50.
MAX_RATIO = 200
#: Bytes of a record of CSV or JSON lines. A longer record means a quote that is never closed.
MAX_RECORD_BYTES = 16 * 1024**2

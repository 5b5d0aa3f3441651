"""Tables: the columns of a batch of rows in, an array of predictions out, without an object for each row.

check ─> predict ─> result

schema     the columns and types of a contract
columns    find the columns of a contract in a table
check      check the columns of a table against a contract; doubtful rows go to the check of instances
values     check one column: which rows are certain to be valid
datetimes  the same for columns of datetimes and dates
lists      the same for columns of lists
instances  the rows of a table as instances
predict    predict a table, and find the rows for which the model fails
result     the predictions and the errors of a table

These modules import pyarrow, which is an extra (`headrace-worker[parquet]`), so only code for tables imports them.
"""

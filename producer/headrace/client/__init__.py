"""The faces of Headrace in Python: `Client`, `AsyncClient`, their job handles and dead letters."""

"""The HTTP API. Thin handlers: bytes become structs in `wire`, errors become problems in `middleware`."""

"""The HTTP API. Thin handlers: bytes become structs in `wire`, errors become answers in `problems`."""

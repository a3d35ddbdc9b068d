"""The demo: a real PX4 flight through a real sidecar, told in the terminal. Start it with `make demo`."""

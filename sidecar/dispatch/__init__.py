"""Delivery: who subscribes, what each of them gets next, and one HTTP attempt at a time to get it there."""

"""What both listeners stand on: connections that are counted and bounded, whoever the other side is."""

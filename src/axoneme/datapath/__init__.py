"""The kernel side of Axoneme: loading its programs, its tables as arrays, attaching, events."""

"""What a process tells of itself in numbers, for Prometheus: values by name and labels, their text, a server
of that; and the metrics that are made from flows.
"""

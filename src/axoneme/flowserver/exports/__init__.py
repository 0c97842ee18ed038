"""Flows that leave the flow server by themselves: to files (`files`) and to collectors (`otlp`), as a file
says that is followed while the server runs (`config`, `running`).
"""

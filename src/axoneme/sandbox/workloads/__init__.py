"""What turns workloads into pods: one module a kind, each a pure function.

Each `reconcile` gets a workload and the objects that it owns, and returns the `Changes` that bring them
together: objects to make and to delete, fields to set, the workload's status. It may be asked again at
any time; when nothing is left to do, the changes are empty. `controller` asks, and applies.
"""

"""What users declare, as immutable values: labels, policies, workloads; parsing and validation."""

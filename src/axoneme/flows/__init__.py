"""Flows: what the kernel reported about connections and drops, kept, named, filtered and shown.

`events` turns the kernel's records into flow records (numpy), `names` says who stands behind their
addresses, `store` keeps them, `filters` picks among them, `encode` makes JSON values (`flow`) of the
few that somebody asked for, `render` makes text of those. All of that is pure; `rules` and `kernel` know
the files and maps that agents leave. The process is `axoneme.flowserver`.
"""

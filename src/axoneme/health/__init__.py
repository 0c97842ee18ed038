"""Whether the nodes reach each other, how fast, and by which way: measured, all the time, by every agent."""

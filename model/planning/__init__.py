"""What a run will need, from sizes alone: parameters, FLOPs, memory. Pure functions over frozen records."""

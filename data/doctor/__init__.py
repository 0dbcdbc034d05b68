"""The doctor: what stands in the way of a long run, told before it starts. Command: scripts/doctor.py."""

"""Training: one expert per task on a frozen backbone, and the comparison rows that give it meaning."""

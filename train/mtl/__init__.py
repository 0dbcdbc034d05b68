"""Training of multi-task models: weightings, backward task by task, the trainer."""

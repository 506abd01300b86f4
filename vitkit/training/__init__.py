"""What changes a gradient: tasks, losses, mixing, optimisers, schedules, callbacks."""

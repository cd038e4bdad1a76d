"""The run's configuration: its sections, checks and documentation."""

"""From the configuration to files and jobs, and the checks made before any job."""

"""What the stages of several studies do: streams, lanes, parts, resuming, joining."""

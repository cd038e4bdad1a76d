"""Tables of the calibration study: names of the networks, one seed's rows, all seeds' summary."""

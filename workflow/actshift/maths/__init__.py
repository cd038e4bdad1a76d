"""Pure numpy: spectra, shifts, directions, resampling, held-out energy. No files, no models."""

"""Networks that refine an inversion: HFGI's encoders of a residual, SAM's invertibility network."""

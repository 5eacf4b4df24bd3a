"""Training losses: one unweighted term per class; `compose` sums them."""

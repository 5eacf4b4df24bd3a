"""Every embedder with every refiner: pairs, their scores, tables, claims and figures."""

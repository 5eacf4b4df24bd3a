"""Lightning callbacks: panels, throughput, the metrics file."""

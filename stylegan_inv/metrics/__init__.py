"""Metrics with per-image values kept (torchmetrics), and their functional forms."""

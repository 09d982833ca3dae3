"""Detection: windows, their vectors, the layers behind them, and what is found."""

"""Who may come in, and whose turn it is; knows neither pictures nor HTTP."""
